"""What can go wrong on the command line itself.

GalleyError
└── CliError
    ├── Misuse
    ├── NoServer
    ├── QueueNotServed
    ├── NoQueues
    ├── NoSuchTask
    └── CommandBroken
"""

# ruff: noqa: D102 - the docstring of the class says what `describe` describes

from galley.errors import GalleyError


class CliError(GalleyError):
    """Base of the errors of the command line."""

    reason = "CliError"


class Misuse(CliError):
    """The words of the command make no sense together."""

    reason = "Misuse"

    def describe(self, problem: str, hint: str) -> str:
        self.problem, self.hint = problem, hint
        return problem


class NoServer(CliError):
    """Nothing says which NATS server to talk to, or what says it is out of date."""

    reason = "NoServer"

    def describe(self, problem: str) -> str:
        self.problem = problem
        self.hint = "run `galley dev FILE...` in this folder, or name a server: --server nats://HOST:4222"
        return problem


class QueueNotServed(CliError):
    """A file declares a queue, and nobody here can make queues."""

    reason = "QueueNotServed"

    def describe(self, source: str, queue: str) -> str:
        self.source, self.queue = source, queue
        self.hint = f"run it: galley dev {source}"
        return f"{source} declares queue {queue!r}, which does not exist; `galley apply` submits tasks only"


class NoQueues(CliError):
    """There is no queue yet that could know the task."""

    reason = "NoQueues"

    def describe(self, namespace: str) -> str:
        self.namespace = namespace
        self.hint = (
            "`galley dev FILE...` makes the queues of its manifests; or name another namespace: -n NAME"
        )
        return f"there are no queues in namespace {namespace!r}"


class NoSuchTask(CliError):
    """No queue that was asked knows the task."""

    reason = "TaskNotFound"

    def describe(self, namespace: str, task_id: str) -> str:
        self.namespace, self.task_id = namespace, task_id
        self.hint = "see `galley get tasks`; records go after spec.retention.resultsSeconds of their queue"
        return f"no queue in namespace {namespace!r} knows a task {task_id!r}"


class CommandBroken(CliError):
    """An installed package offers a command that cannot be loaded."""

    reason = "CommandBroken"

    def describe(self, name: str, package: str, problem: str) -> str:
        self.name, self.package, self.problem = name, package, problem
        self.hint = f"pip install galley-tasks[{package}]"
        return f"the command {name!r} cannot be loaded: {problem}"
