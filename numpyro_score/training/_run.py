"""One fit under way: its state, its history, and why it stopped."""

from __future__ import annotations

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from numpyro_score._typing import Array, PyTree
from numpyro_score.training._checkpoint import Checkpoint, Snapshot
from numpyro_score.training._judge import Judge
from numpyro_score.training._loop import Problem, State, has_minimum, run_chunk, start
from numpyro_score.training._sources import Feed
from numpyro_score.training.result import FitResult, FitWarning, Losses, Stopped

_REMEDIES = (
    "Try a lower learning_rate, an optimizer that clips gradients, or a larger noise_scale, and "
    "look for outliers in the data."
)
_METRIC = "metric: "


class Run:
    """Mutable counterpart of :class:`FitResult`; it lives as long as one call of ``fit``."""

    def __init__(
        self,
        problem: Problem,
        params: PyTree,
        feed: Feed,
        judge: Judge | None,
        checkpoint: Checkpoint | None = None,
    ):
        self.problem = problem
        self.feed = feed
        self.judge = judge
        self.checkpoint = checkpoint
        self.initial = params
        self.begin = time.perf_counter()
        self.state = start(params, problem, feed.source.sample)
        self.chunk_before: tuple[State, int] | None = None
        self.best: PyTree | None = None
        self.losses: list[np.ndarray] = []
        self.validation_losses: list[float] = []
        self.validation_steps: list[int] = []
        self.metrics: dict[str, list[float]] = {n: [] for n in judge.metrics} if judge else {}
        self.stopped: Stopped = "finished"
        self.complaint = ""
        self.has_warned = False
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
                    self._chunk(min(self.feed.chunk_size, num_steps - before))
                    if self.stopped in ("finished", "exhausted") and self.num_steps > before:
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
                if self._is_whole:
                    self._write(at_once=True)
            except Exception as error:
                if self._is_whole:
                    self._write(at_once=True)
                self._tell_what_is_kept(error)
                raise

    def result(self) -> FitResult:
        """Return what there is."""
        chosen = self._chosen()
        if self.problem.sharding is not None:
            # From all devices to the one that everything else is on.
            chosen = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), chosen)
        return FitResult(
            network=self.problem.network(chosen),
            num_steps=self.num_steps,
            stopped=self.stopped,
            metrics={name: self._as_array(values) for name, values in self.metrics.items()},
            seconds=time.perf_counter() - self.begin,
            final_losses=self._look(),
            best_step=self._best_step,
            **self._history(),
        )

    def _history(self) -> dict[str, np.ndarray]:
        return {
            "losses": np.concatenate([self._as_array([]), *self.losses]),
            "validation_losses": self._as_array(self.validation_losses),
            "validation_steps": np.array(self.validation_steps, int),
        }

    @staticmethod
    def _as_array(values: list[float]) -> np.ndarray:
        return np.array(values, jnp.result_type(float))

    def _look(self) -> Losses | None:
        """Return the losses before and after the fit, where they can tell how good it is."""
        if self.judge is None or not has_minimum(self.problem.objective):
            return None
        return self.judge.compare(self.initial, self._chosen(), self.feed.source.sample)

    @property
    def _best_step(self) -> int | None:
        if self.best is None:
            return None
        return self.validation_steps[int(np.argmin(self.validation_losses))]

    def _chosen(self) -> PyTree:
        return self.state.average if self.best is None else self.best

    def _chunk(self, num_steps: int) -> None:
        asked, num_steps = num_steps, self.feed.num_available(self.num_steps, num_steps)
        if num_steps < asked:
            self._stop_exhausted(self.num_steps + num_steps)
        if num_steps == 0:
            return
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
        size, batches = self.feed.chunk_size, self.feed.chunk(int(state.step), num_steps)
        return run_chunk(self.problem, state, jnp.int32(num_steps), size, careful, batches)

    def _step_before(self, done: int) -> State:
        """Return the state a step earlier: the last whose parameters had a finite loss."""
        if done > 0:
            return self._run(self.state, done - 1)[0]
        if self.chunk_before is None:
            return self.state
        state, num_steps = self.chunk_before
        return self._run(state, num_steps - 1)[0]

    def _validate(self, patience: int | None) -> None:
        if self.judge is None:
            return
        loss = self.judge.loss(self.state.average)
        if not np.isfinite(loss):
            self.state = self._step_before(0)
            self._stop_non_finite(f"the validation loss ({loss})", int(self.state.step))
            return
        measured = self.judge.measure(self.state.average)
        is_best = not self.validation_losses or loss < min(self.validation_losses)
        if is_best and has_minimum(self.problem.objective):
            self.best = self.state.average
        self.validation_losses.append(loss)
        self.validation_steps.append(self.num_steps)
        for name, value in measured.items():
            self.metrics[name].append(value)
        since_best = len(self.validation_losses) - 1 - int(np.argmin(self.validation_losses))
        if patience is not None and since_best >= patience:
            self.stopped = "patience"

    def _stop_exhausted(self, num_steps: int) -> None:
        self.stopped = "exhausted"
        self.complaint = (
            f"data ended after {num_steps} batches, one for each step; the network of these steps "
            "is returned. Let the iterator repeat without end, or give something that can be "
            "iterated over again, such as a data loader."
        )

    def _tell_what_is_kept(self, error: Exception) -> None:
        if self.num_steps == 0:
            return
        kept = f"The fit had taken {self.num_steps} steps"
        if self.checkpoint is None:
            error.add_note(f"{kept}; with checkpoint= they would not be lost.")
        elif self.checkpoint.path.exists():
            error.add_note(f"{kept}; {self.checkpoint.path} has what is needed to go on.")

    def _stop_non_finite(self, what: str, kept: int) -> None:
        self.stopped = "non_finite"
        self.best = None
        self.complaint = (
            f"{what} was not finite; the last finite network, of step {kept}, is returned. "
            f"{_REMEDIES}"
        )

    def _write(self, at_once: bool) -> None:
        """Write a checkpoint; one that cannot be written ends neither the fit nor an interrupt."""
        if self.checkpoint is None or not (at_once or self.checkpoint.is_due):
            return
        try:
            self.checkpoint.write(self._snapshot())
        except OSError as error:
            if not self.has_warned:
                self.has_warned = True
                # At the caller of fit, by way of advance.
                warnings.warn(
                    f"the checkpoint {self.checkpoint.path} could not be written ({error}); the "
                    "fit goes on, and tries again later.",
                    FitWarning,
                    stacklevel=4,
                )

    def _snapshot(self) -> Snapshot:
        trees: dict[str, PyTree] = {"state": self.state}
        if self.best is not None:
            trees["best"] = self.best
        if self.chunk_before is not None:
            trees["before"] = self.chunk_before[0]
        metrics = {_METRIC + name: np.array(values) for name, values in self.metrics.items()}
        # These go on; a fit that stopped for another reason is over.
        goes_on = self.stopped in ("interrupted", "exhausted")
        stopped = "finished" if goes_on else self.stopped
        facts = {
            "stopped": stopped,
            "complaint": "" if stopped == "finished" else self.complaint,
            "steps_before": None if self.chunk_before is None else self.chunk_before[1],
        }
        return Snapshot(trees, self._history() | metrics, facts)

    @property
    def _is_whole(self) -> bool:
        """Whether the last chunk has its validation.

        If not, a file of an earlier one stays, after which nothing is missing.
        """
        return self.judge is None or self.validation_steps[-1:] == [self.num_steps]

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
        self.metrics = {name: found.history[_METRIC + name].tolist() for name in self.metrics}
        self.stopped, self.complaint = found.facts["stopped"], found.facts["complaint"]
        before = self.state if self.chunk_before is None else self.chunk_before[0]
        self.feed.source.resume(int(before.step))

    def _postfix(self) -> dict[str, str]:
        out = {}
        if self.num_steps:
            out["loss"] = f"{np.mean(self.losses[-1]):.4g}" if len(self.losses[-1]) else "nan"
        if self.validation_losses:
            out["val"] = f"{self.validation_losses[-1]:.4g}"
        out |= {name: f"{values[-1]:.4g}" for name, values in self.metrics.items() if values}
        return out
