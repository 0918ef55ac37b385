"""What a fit returns, and how it warns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from numpyro_score._typing import Array

Stopped: TypeAlias = Literal["finished", "patience", "non_finite", "interrupted"]


class FitWarning(UserWarning):
    """A fit ended before its last step, and not because it was good enough."""


@dataclass(frozen=True, repr=False, eq=False)
class FitResult:
    """A learned network and the history of its losses.

    :param network: the averaged (EMA) network, ready for use. With a validation split, the one
        of the lowest validation loss, unless a loss was not finite.
    :param losses: mean loss of the minibatch at each step, shape ``(num_steps,)``.
    :param validation_losses: mean loss of the averaged network on the validation rows, with the
        same noise each time; empty without a validation split.
    :param validation_steps: number of steps before each of them.
    :param num_steps: number of steps done.
    :param stopped: ``"finished"``, ``"patience"`` (early stopping), ``"non_finite"`` or
        ``"interrupted"``.
    """

    network: Callable[..., Array]
    losses: np.ndarray
    validation_losses: np.ndarray
    validation_steps: np.ndarray
    num_steps: int
    stopped: Stopped

    def __repr__(self) -> str:
        text = f"FitResult({type(self.network).__name__}, {self.num_steps} steps, {self.stopped}"
        if self.num_steps:
            tail = self.losses[-max(1, self.num_steps // 20) :]
            text += f", loss {np.mean(tail):.4g}"
        if len(self.validation_losses):
            best = int(np.nanargmin(self.validation_losses))
            text += (
                f", best validation loss {self.validation_losses[best]:.4g} "
                f"at step {self.validation_steps[best]}"
            )
        return text + ")"
