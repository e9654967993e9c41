"""What can go wrong on the command line itself.

GalleyError
└── CliError
    ├── Misuse
    ├── NoServer
    ├── QueueNotServed
    ├── QueueChanged
    ├── NoQueues
    ├── NoSuchTask
    ├── ModuleBroken
    ├── AuditNotReadable
    ├── OutputFailed
    │   └── OutputClosed
    └── CommandBroken
"""

from galley.errors import GalleyError


class CliError(GalleyError):
    """Base of the errors of the command line."""

    reason = "CliError"


class Misuse(CliError):
    """The arguments of the command do not fit together."""

    reason = "Misuse"

    def __init__(self, problem: str, hint: str) -> None:
        self.problem = problem
        super().__init__(problem, hint)


class NoServer(CliError):
    """No NATS server is configured, or the file that names one is out of date."""

    reason = "NoServer"
    hint = "run `galley dev FILE...` in this folder, or name a server: --server nats://HOST:4222"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class QueueNotServed(CliError):
    """A file declares a queue, and this command cannot create queues."""

    reason = "QueueNotServed"

    def __init__(self, source: str, queue: str) -> None:
        self.source, self.queue = source, queue
        super().__init__(
            f"{source} declares queue {queue!r}, which is not served here; `galley apply` submits tasks only",
            f"run it: galley dev {source}",
        )


class QueueChanged(CliError):
    """A file declares a queue otherwise than it is served, and this command cannot change queues."""

    reason = "QueueChanged"

    def __init__(self, source: str, queue: str, fields: tuple[str, ...], hint: str) -> None:
        self.source, self.queue, self.fields = source, queue, fields
        super().__init__(
            f"{source} declares queue {queue!r} otherwise than it is served: {', '.join(fields)}; "
            "nothing was submitted",
            hint,
        )


class NoQueues(CliError):
    """The namespace has no queues, so none can know the task."""

    reason = "NoQueues"
    hint = "`galley dev FILE...` creates the queues of its manifests; or name another namespace: -n NAME"

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        super().__init__(f"there are no queues in namespace {namespace!r}")


class NoSuchTask(CliError):
    """None of the queues that were asked knows the task."""

    reason = "TaskNotFound"
    hint = (
        "see `galley get tasks`; records expire after spec.retention.resultsSeconds of their queue, and a "
        "task that failed is in `galley dead list QUEUE` even then"
    )

    def __init__(self, namespace: str, task_id: str) -> None:
        self.namespace, self.task_id = namespace, task_id
        super().__init__(f"no queue in namespace {namespace!r} has a task {task_id!r}")


class AuditNotReadable(CliError):
    """The credentials do not allow reading the audit lines of a namespace."""

    reason = "AuditNotReadable"
    hint = (
        "credentials of one queue may not read what was done to others: use those of galley-backup, or ask "
        "the gateway: GET /api/v1/namespaces/NAMESPACE/audit"
    )

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(f"these credentials do not allow reading {stream}")


class OutputFailed(CliError):
    """The output of the command cannot be written."""

    reason = "OutputFailed"
    hint = "the command itself may have succeeded; give it an output that can be written"

    def __init__(self, stream: str, problem: str) -> None:
        self.stream, self.problem = stream, problem
        super().__init__(f"{stream} cannot be written: {problem}")


class OutputClosed(OutputFailed):
    """The reader of the output has gone, as in `galley get tasks | head -1`."""

    reason = "OutputClosed"


class ModuleBroken(CliError):
    """A module that a command was to import cannot be imported."""

    reason = "ModuleBroken"

    def __init__(self, module: str, problem: str) -> None:
        self.module, self.problem = module, problem
        super().__init__(
            f"module {module} cannot be imported: {problem}",
            "run the command where workers could import it, in a folder and an environment with all it needs",
        )


class CommandBroken(CliError):
    """An installed package provides a command that cannot be loaded."""

    reason = "CommandBroken"

    def __init__(self, name: str, package: str, problem: str) -> None:
        self.name, self.package, self.problem = name, package, problem
        super().__init__(
            f"the command {name!r} cannot be loaded: {problem}", f"pip install galley-tasks[{package}]"
        )
