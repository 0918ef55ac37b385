"""What a diagnostic returns: a number, its standard error, and how to read it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Diagnostic:
    """Base of the results of this room; a subclass is a frozen dataclass with fields of its own.

    - **value** - the number; NaN where the data cannot tell it.
    - **error** - its standard error; NaN where that is not known.

    ``float(result)`` is the number, and the ``repr`` says how to read it.
    """

    value: float
    error: float

    @abstractmethod
    def reading(self) -> str:
        """Return how to read the number, in one line."""

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value:.3g} ± {self.error:.2g}: {self.reading()})"
