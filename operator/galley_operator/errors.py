"""What can go wrong in the control plane.

GalleyError
└── OperatorError
    ├── FleetRefused
    └── FleetUnknown
"""

# ruff: noqa: D102 - the docstring of the class says what `describe` describes

from galley.errors import GalleyError


class OperatorError(GalleyError):
    """Base of the errors of the control plane."""

    reason = "OperatorError"


class FleetRefused(OperatorError):
    """A fleet would have had to remove workers that may still hold tasks; it removed none."""

    reason = "FleetRefused"

    def describe(self, queue: str, present: int, wanted: int, removable: int) -> str:
        self.queue, self.present, self.wanted, self.removable = queue, present, wanted, removable
        self.hint = "drain workers, wait until they are draining with nothing running, and scale then"
        return (
            f"queue {queue!r} keeps its {present} workers instead of {wanted}: "
            f"{present - wanted} would have to go, {removable} are drained or failed"
        )


class FleetUnknown(OperatorError):
    """Nobody can say at the moment what workers a queue has."""

    reason = "FleetUnknown"

    def describe(self, queue: str, problem: str) -> str:
        self.queue, self.problem = queue, problem
        self.hint = "the present number of workers is kept until it is known again"
        return f"the workers of queue {queue!r} are not known: {problem}"
