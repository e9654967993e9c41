"""What can go wrong with a cluster for tests; each says what happened, to what, and what to do."""


class ClusterError(Exception):
    """Something about a cluster for tests failed; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\nhint: {self.hint}" if self.hint else message


class CannotRunHere(ClusterError):
    """This machine lacks something; nothing was begun."""


class BuildFailed(ClusterError):
    """The programs could not be built."""


class DidNotStart(ClusterError):
    """A cluster did not become ready; it was taken down again."""


class NotRunning(ClusterError):
    """There is no such cluster, or a part of it does not run."""


class AlreadyRunning(ClusterError):
    """The cluster, or the part, runs already."""


class NotPossible(ClusterError):
    """This provider cannot do that at all."""


class LeftBehind(ClusterError):
    """Something of a cluster is still on the machine after it was taken down."""


class ImageNotBuilt(ClusterError):
    """A step of building an image failed; the message ends with what the program printed."""
