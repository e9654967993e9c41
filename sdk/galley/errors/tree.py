"""The root of all errors, and its two largest branches."""

from typing import Any, ClassVar


class GalleyError(Exception):
    """Base of all errors Galley raises.

    The message says what happened and to what; `hint` says what to do.
    """

    reason: ClassVar[str] = "GalleyError"
    hint: str = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        """Set the message, and the hint unless the class has one."""
        super().__init__(message)
        if hint is not None:
            self.hint = hint
        if self.hint:
            self.add_note(f"hint: {self.hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors differ and may compute what they store, so the attributes travel instead.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[GalleyError], args: tuple[Any, ...], attributes: dict[str, Any]) -> GalleyError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class Invalid(GalleyError):
    """What was passed in can never work, however often it is tried."""

    reason = "Invalid"


class Refused(GalleyError):
    """The queue did not accept the task; nothing was stored."""

    reason = "Refused"
