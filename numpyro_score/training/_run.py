"""One fit under way: its state, its history, and why it stopped."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from numpyro_score._typing import Array, PyTree
from numpyro_score.training._checkpoint import Checkpoint, Snapshot
from numpyro_score.training._data import Rows
from numpyro_score.training._loop import (
    Problem,
    State,
    has_minimum,
    run_chunk,
    start,
    validation_loss,
)
from numpyro_score.training.result import FitResult, Stopped

_REMEDIES = (
    "Try a lower learning_rate, an optimizer that clips gradients, or a larger noise_scale, and "
    "look for outliers in the data."
)


class Run:
    """Mutable counterpart of :class:`FitResult`; it lives as long as one call of ``fit``."""

    def __init__(
        self,
        problem: Problem,
        params: PyTree,
        validation: Rows | None,
        validation_key: Array,
        chunk_size: int,
        checkpoint: Checkpoint | None = None,
    ):
        self.problem = problem
        self.checkpoint = checkpoint
        self.chunk_size = chunk_size
        self.validation = validation
        self.validation_key = validation_key
        self.state = start(params, problem)
        self.chunk_before: tuple[State, int] | None = None
        self.best: PyTree | None = None
        self.losses: list[np.ndarray] = []
        self.validation_losses: list[float] = []
        self.validation_steps: list[int] = []
        self.stopped: Stopped = "finished"
        self.complaint = ""
        if checkpoint is not None:
            self._restore(checkpoint)

    @property
    def num_steps(self) -> int:
        """Number of steps that are in the history."""
        return sum(len(losses) for losses in self.losses)

    def advance(self, num_steps: int, patience: int | None, progress_bar: bool) -> None:
        """Take the steps, chunk by chunk, until something says stop."""
        with tqdm(
            total=num_steps,
            initial=self.num_steps,
            disable=not progress_bar,
            desc="fit",
            unit="step",
        ) as bar:
            try:
                while self.num_steps < num_steps and self.stopped == "finished":
                    before = self.num_steps
                    self._chunk(min(self.chunk_size, num_steps - before))
                    if self.stopped == "finished":
                        self._validate(patience)
                    bar.set_postfix(self._postfix(), refresh=False)
                    bar.update(self.num_steps - before)
                    self._write(at_once=self.stopped != "finished" or self.num_steps == num_steps)
            except KeyboardInterrupt:
                self.stopped = "interrupted"
                self.complaint = (
                    f"interrupted after step {self.num_steps} of {num_steps}; the network of the "
                    "steps until then is returned."
                )
                self._write(at_once=True)

    def result(self) -> FitResult:
        """Return what there is."""
        chosen = self.state.average if self.best is None else self.best
        return FitResult(
            network=self.problem.network(chosen),
            losses=np.concatenate([np.zeros(0, jnp.result_type(float)), *self.losses]),
            validation_losses=np.array(self.validation_losses, jnp.result_type(float)),
            validation_steps=np.array(self.validation_steps, int),
            num_steps=self.num_steps,
            stopped=self.stopped,
        )

    def _chunk(self, num_steps: int) -> None:
        state, losses = self._run(self.state, num_steps)
        if not state.finite:
            # The keys follow from the step, so this takes the same steps again.
            state, losses = self._run(self.state, num_steps, careful=True)
        # Wait before anything is kept: an interrupt here leaves the last chunk intact.
        history = np.asarray(losses)
        done = int(state.step) - int(self.state.step)
        if done < num_steps:
            if not np.isfinite(history[done]):
                state = self._step_before(done)
            self._stop_non_finite(f"the loss ({history[done]}) or a parameter", int(state.step))
        self.chunk_before = self.state, num_steps
        self.state = state
        self.losses.append(history[:done])

    def _run(self, state: State, num_steps: int, careful: bool = False) -> tuple[State, Array]:
        return run_chunk(self.problem, state, jnp.int32(num_steps), self.chunk_size, careful)

    def _step_before(self, done: int) -> State:
        """Return the state a step earlier: the last whose parameters had a finite loss."""
        if done > 0:
            return self._run(self.state, done - 1)[0]
        if self.chunk_before is None:
            return self.state
        state, num_steps = self.chunk_before
        return self._run(state, num_steps - 1)[0]

    def _validate(self, patience: int | None) -> None:
        if self.validation is None:
            return
        loss = float(
            validation_loss(self.problem, self.state.average, self.validation, self.validation_key)
        )
        if not np.isfinite(loss):
            self.state = self._step_before(0)
            self._stop_non_finite(f"the validation loss ({loss})", int(self.state.step))
            return
        is_best = not self.validation_losses or loss < min(self.validation_losses)
        if is_best and has_minimum(self.problem.objective):
            self.best = self.state.average
        self.validation_losses.append(loss)
        self.validation_steps.append(self.num_steps)
        since_best = len(self.validation_losses) - 1 - int(np.argmin(self.validation_losses))
        if patience is not None and since_best >= patience:
            self.stopped = "patience"

    def _stop_non_finite(self, what: str, kept: int) -> None:
        self.stopped = "non_finite"
        self.best = None
        self.complaint = (
            f"{what} was not finite; the last finite network, of step {kept}, is returned. "
            f"{_REMEDIES}"
        )

    def _write(self, at_once: bool) -> None:
        if self.checkpoint is None or not (at_once or self.checkpoint.is_due):
            return
        if self.stopped == "interrupted" and not self._is_validated():
            return  # the file is of an earlier chunk, after which nothing is missing
        trees: dict[str, PyTree] = {"state": self.state}
        if self.best is not None:
            trees["best"] = self.best
        if self.chunk_before is not None:
            trees["before"] = self.chunk_before[0]
        result = self.result()
        history = {
            "losses": result.losses,
            "validation_losses": result.validation_losses,
            "validation_steps": result.validation_steps,
        }
        # An interrupted fit goes on; one that stopped for another reason is over.
        stopped = "finished" if self.stopped == "interrupted" else self.stopped
        facts = {
            "stopped": stopped,
            "complaint": "" if stopped == "finished" else self.complaint,
            "steps_before": None if self.chunk_before is None else self.chunk_before[1],
        }
        self.checkpoint.write(Snapshot(trees, history, facts))

    def _is_validated(self) -> bool:
        return self.validation is None or self.validation_steps[-1:] == [self.num_steps]

    def _restore(self, checkpoint: Checkpoint) -> None:
        like = {"state": self.state, "best": self.state.params, "before": self.state}
        found = checkpoint.read(like)
        if found is None:
            return
        self.state = found.trees["state"]
        self.best = found.trees.get("best")
        if "before" in found.trees:
            self.chunk_before = found.trees["before"], found.facts["steps_before"]
        self.losses = [found.history["losses"]]
        self.validation_losses = found.history["validation_losses"].tolist()
        self.validation_steps = found.history["validation_steps"].tolist()
        self.stopped, self.complaint = found.facts["stopped"], found.facts["complaint"]

    def _postfix(self) -> dict[str, str]:
        out = {}
        if self.num_steps:
            out["loss"] = f"{np.mean(self.losses[-1]):.4g}" if len(self.losses[-1]) else "nan"
        if self.validation_losses:
            out["val"] = f"{self.validation_losses[-1]:.4g}"
        return out
