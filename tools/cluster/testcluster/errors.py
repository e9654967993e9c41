"""Errors of clusters for tests; each says what happened to what, and what to do."""


class ClusterError(Exception):
    """Base of all errors here; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\nhint: {self.hint}" if self.hint else message


class CannotRunHere(ClusterError):
    """This machine lacks a requirement; nothing was started."""


class BuildFailed(ClusterError):
    """The programs could not be built."""


class DidNotStart(ClusterError):
    """A cluster did not become ready; it was removed."""


class NotRunning(ClusterError):
    """There is no such cluster, or a part of it is not running."""


class AlreadyRunning(ClusterError):
    """The cluster or the part is already running."""


class NotPossible(ClusterError):
    """This provider does not support the operation."""


class LeftBehind(ClusterError):
    """Something of a cluster is still on the machine after its removal."""


class ImageNotBuilt(ClusterError):
    """A step of building an image failed; the message ends with what the program printed."""
