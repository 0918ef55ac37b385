"""What a fit returns, and how it warns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import numpy as np

from numpyro_score._typing import Array

Stopped: TypeAlias = Literal["finished", "patience", "non_finite", "interrupted", "exhausted"]


class FitWarning(UserWarning):
    """A fit ended before its last step, and not because it was good enough, or is visibly poor.

    Or its checkpoint could not be written.
    """


class Mean(NamedTuple):
    """A mean over rows, and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.1g}"


class Losses(NamedTuple):
    """Losses of the network before and after a fit, on training rows and on as many held out."""

    training_before: Mean
    validation_before: Mean
    training_after: Mean
    validation_after: Mean


@dataclass(frozen=True, repr=False, eq=False)
class FitResult:
    """A learned network and the history of its losses.

    :param network: the averaged (EMA) network, ready for use. With a validation split, the one
        of the lowest validation loss, unless a loss was not finite, or the loss tells nothing
        (contrastive divergence).
    :param losses: mean loss of the minibatch at each step, shape ``(num_steps,)``.
    :param validation_losses: mean loss of the averaged network on the validation rows, with the
        same noise each time; empty without a validation split.
    :param validation_steps: number of steps before each of them.
    :param num_steps: number of steps done.
    :param stopped: ``"finished"``, ``"patience"`` (early stopping), ``"non_finite"``,
        ``"interrupted"`` or ``"exhausted"`` (an iterator of batches ended).
    :param metrics: the metrics at ``validation_steps``, by name.
    :param seconds: that this call took, compilation included.
    :param final_losses: losses before and after, of training rows and of validation rows with the
        same noise; None without validation rows, or where the loss tells nothing.
    :param best_step: number of steps before ``network``, where it is the one of the lowest
        validation loss; None where it is the last.
    """

    network: Callable[..., Array]
    losses: np.ndarray
    validation_losses: np.ndarray
    validation_steps: np.ndarray
    num_steps: int
    stopped: Stopped
    metrics: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    final_losses: Losses | None = None
    best_step: int | None = None

    def print_summary(self) -> None:
        """Print what was learned, and how well.

        >>> import numpy as np
        >>> from numpyro_score.training import FitResult
        >>> none = np.zeros(0)
        >>> FitResult(abs, np.ones(10), none, none, 10, "finished", seconds=2.0).print_summary()
        network   builtin_function_or_method, 0 parameters
        steps     10, finished, 2.0 s
        loss      1
        """
        arrays = jax.tree.leaves(eqx.filter(self.network, eqx.is_inexact_array))
        size = sum(x.size for x in arrays)
        rows = [
            ("network", f"{type(self.network).__name__}, {size:,} parameters"),
            ("steps", f"{self.num_steps:,}, {self.stopped}, {self.seconds:.1f} s"),
        ]
        if self.num_steps:
            rows.append(("loss", f"{self._last_loss:.4g}"))
        if self.final_losses is not None:
            losses = self.final_losses
            rows += [
                ("training", f"{losses.training_before} → {losses.training_after}"),
                ("held out", f"{losses.validation_before} → {losses.validation_after}"),
            ]
        if self.best_step is not None:
            rows.append(("best", f"at step {self.best_step:,}"))
        rows += [(name, f"{values[-1]:.4g}") for name, values in self.metrics.items()]
        width = max(8, *(len(name) for name, _ in rows))
        print("\n".join(f"{name:{width}}  {what}" for name, what in rows))

    @property
    def _last_loss(self) -> float:
        return float(np.mean(self.losses[-max(1, self.num_steps // 20) :]))

    def __repr__(self) -> str:
        text = f"FitResult({type(self.network).__name__}, {self.num_steps} steps, {self.stopped}"
        if self.num_steps:
            text += f", loss {self._last_loss:.4g}"
        if self.best_step is not None:
            best = np.nanmin(self.validation_losses)
            text += f", best validation loss {best:.4g} at step {self.best_step}"
        return text + ")"
