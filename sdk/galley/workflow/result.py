"""What a call may have in the place of an argument: the result of a step, or a part of it. Pure."""

from typing import Any, Final

from msgspec import Struct


class StepResult:
    """The result of a step, to be passed to another one; `result["key"]` and `result[0]` are parts of it.

    It is an argument as a whole: inside a list or an object it cannot be encoded, which is an `InputInvalid`.
    """

    __slots__ = ("path", "step")

    def __init__(self, step: str, path: tuple[str | int, ...] = ()) -> None:
        """Args: step: its name, empty for what comes before; path: to a part of the result."""
        self.step, self.path = step, path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepResult) and (self.step, self.path) == (other.step, other.path)

    def __hash__(self) -> int:
        return hash((self.step, self.path))

    def __repr__(self) -> str:
        return f"StepResult(step={self.step!r}, path={self.path!r})"

    def __getitem__(self, key: str | int) -> "StepResult":
        """Return a part of the result: a field of an object, or an element of a list."""
        return StepResult(self.step, (*self.path, key))

    def __iter__(self) -> Any:
        """Refuse: how many parts there are is not known before the step has ended."""
        raise TypeError(f"the result of step {self.step!r} is not known yet; pass it, or parts such as [0]")


previous: Final = StepResult("")
"""The result of what comes before a step in a chain."""


class Partial(Struct, frozen=True):
    """What a call lacks: it can be a step of a workflow, and not a task by itself."""

    missing: tuple[str, ...] = ()
    """Arguments that have to be given, and are not, in the order of the signature."""
    holes: tuple[tuple[str, StepResult], ...] = ()
    """Arguments that are results of other steps."""


def split(arguments: dict[str, Any]) -> tuple[dict[str, Any], tuple[tuple[str, StepResult], ...]]:
    """Return the arguments that are known, and those that are results of steps."""
    holes = tuple((name, value) for name, value in arguments.items() if isinstance(value, StepResult))
    if not holes:
        return arguments, ()
    return {name: value for name, value in arguments.items() if not isinstance(value, StepResult)}, holes


def lacking(partial: Partial) -> str:
    """Return what keeps a call from being a task, as a part of a sentence."""
    if partial.holes:
        return f"argument {partial.holes[0][0]!r} is the result of a step"
    missing = ", ".join(repr(name) for name in partial.missing)
    return f"missing a required argument: {missing}"
