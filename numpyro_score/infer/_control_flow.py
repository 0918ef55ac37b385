"""Plates inside NumPyro's ``scan`` and ``cond``, which no handler around them gets to see."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from numpyro.primitives import Messenger

# Which arguments of the message are bodies, by the function that runs them. (What is carried
# along can be callable too: a module, a distribution.)
_BODIES = {"scan_wrapper": (0,), "cond_wrapper": (1, 2)}


class UnhidePlates(Messenger):
    """Call ``see`` with name, size and subsample size of each plate inside ``scan`` or ``cond``."""

    def __init__(
        self, see: Callable[[str, int, int | None], None], *, is_inside: bool = False
    ) -> None:
        super().__init__(fn=None)
        self._see = see
        self._is_inside = is_inside

    def process_message(self, msg: dict[str, Any]) -> None:
        """Look at a plate, or go along into the bodies."""
        if msg["type"] == "control_flow":
            args = list(msg["args"])
            for k in _BODIES.get(msg["fn"].__name__, ()):
                args[k] = self._watched(args[k])
            msg["args"] = tuple(args)
        elif msg["type"] == "plate" and self._is_inside:
            self._see(msg["name"], *msg["args"])

    def _watched(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(body)
        def watched(*args: Any) -> Any:
            with UnhidePlates(self._see, is_inside=True):
                return body(*args)

        return watched
