"""What was passed in can never work."""

from galley.errors.tree import Invalid


class ManifestInvalid(Invalid):
    """A manifest does not follow the schema of its kind."""

    reason = "ManifestInvalid"

    others: tuple["ManifestInvalid", ...] = ()
    """The next problems of the same file, at most nine, by line; empty if there is one problem only."""

    def __init__(self, source: str, line: int, field: str, problem: str, hint: str = "") -> None:
        self.source, self.line, self.field, self.problem = source, line, field, problem
        place = f"{source}:{line}" if line else source
        super().__init__(f"{place}: {field}: {problem}" if field else f"{place}: {problem}", hint)


class InputInvalid(Invalid):
    """A task's input cannot be encoded as JSON, or exceeds the size limit."""

    reason = "InputInvalid"

    def __init__(self, handler: str, problem: str, hint: str) -> None:
        self.handler, self.problem = handler, problem
        super().__init__(f"input of handler {handler!r}: {problem}", hint)


class SubmissionInvalid(Invalid):
    """A task's id, queue, times or retry policy is not valid."""

    reason = "SubmissionInvalid"

    def __init__(self, field: str, problem: str, hint: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(f"{field}: {problem}", hint)


class LabelInvalid(Invalid):
    """A label has not the syntax of Kubernetes, or a task has too many."""

    reason = "LabelInvalid"

    def __init__(self, key: str, problem: str, hint: str) -> None:
        self.key, self.problem = key, problem
        super().__init__(f"label {key}: {problem}", hint)


class SelectorInvalid(Invalid):
    """An expression that selects tasks by their labels cannot be read."""

    reason = "SelectorInvalid"
    hint = "write it as for kubectl -l: 'team=billing,tier!=low', 'team', '!team' or 'team in (a, b)'"

    def __init__(self, text: str, problem: str) -> None:
        self.text, self.problem = text, problem
        super().__init__(f"selector {text[:200]!r}: {problem}")


class ScheduleInvalid(Invalid):
    """A schedule can never fire, or contradicts itself: its cron line, time zone, start, end or rules."""

    reason = "ScheduleInvalid"

    def __init__(self, field: str, problem: str, hint: str) -> None:
        """Args: field: which part of it; problem: what is wrong with it; hint: what to do."""
        super().__init__(f"{field}: {problem}", hint)
        self.field, self.problem = field, problem


class EventInvalid(Invalid):
    """An event, or a rule of a topic or a subscription, can never work."""

    reason = "EventInvalid"

    def __init__(self, field: str, problem: str, hint: str) -> None:
        """Args: field: which part of it; problem: what is wrong with it; hint: what to do."""
        super().__init__(f"{field}: {problem}", hint)
        self.field, self.problem = field, problem


class FilterInvalid(EventInvalid):
    """The filter of a subscription cannot be used."""

    reason = "FilterInvalid"

    def __init__(self, text: str, problem: str) -> None:
        """Args: text: the filter; problem: what is wrong with it, and where."""
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        super().__init__(
            "filter", f"{shown!r}: {problem}",
            'write it as: type == "reading" && attributes.region in ["eu", "us"]',
        )  # fmt: skip
        self.text = text


class ProgressInvalid(Invalid):
    """A progress is not a fraction from 0 to 1 with a text."""

    reason = "ProgressInvalid"
    hint = 'pass a fraction from 0 to 1, a text, or both: progress(0.4, "page 40 of 100")'

    def __init__(self, value: str) -> None:
        self.value = value
        super().__init__(f"progress {value[:80]} is not a fraction from 0 to 1 and a text")


class CheckpointInvalid(Invalid):
    """A checkpoint cannot be encoded as JSON, or exceeds the size limit. The one before it stays."""

    reason = "CheckpointInvalid"

    def __init__(self, task_id: str, problem: str, hint: str) -> None:
        self.task_id, self.problem = task_id, problem
        super().__init__(f"checkpoint of task {task_id}: {problem}", hint)


class HandlerUnusable(Invalid):
    """`@task` was used on something that a worker cannot run as a handler."""

    reason = "HandlerUnusable"

    def __init__(self, what: str, problem: str, hint: str) -> None:
        self.what, self.problem = what, problem
        super().__init__(f"{what} cannot be a handler: {problem}", hint)


class HandlerNameInvalid(Invalid):
    """A handler's name has characters or a length that a task may not carry."""

    reason = "HandlerNameInvalid"
    hint = (
        "use 1 to 63 ASCII letters, digits, '_', '-' and '.', starting and ending with a letter or digit; "
        "@task(name=...) sets the name"
    )

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"handler name {name[:80]!r} is not allowed")


class HandlerExists(Invalid):
    """Two functions of one queue have the same handler name."""

    reason = "HandlerExists"

    def __init__(self, queue: str, name: str, first: str, second: str, hint: str = "") -> None:
        self.queue, self.name, self.first, self.second = queue, name, first, second
        super().__init__(
            f"handler {name!r} of queue {queue!r} is both {first} and {second}",
            hint or "give one of them another name: @task(name=...)",
        )


class HandlersMissing(Invalid):
    """A queue has no handlers, so none of its tasks can run."""

    reason = "HandlersMissing"

    def __init__(self, queue: str, modules: str = "") -> None:
        self.queue, self.modules = queue, modules
        if not modules:
            super().__init__(
                f"queue {queue!r} has no handlers",
                "name modules in spec.worker.modules, or add spec.handlers.commands or spec.handlers.http",
            )
            return
        super().__init__(
            f"queue {queue!r} has no handlers: {modules} imported, without a @task for this queue",
            f"put @task, or @task(queue={queue!r}), on a function of a module in spec.worker.modules; "
            "a function that names another queue is a handler of that one alone",
        )


class QueueNameInvalid(Invalid):
    """A queue's name cannot be the name of a TaskQueue."""

    reason = "QueueNameInvalid"
    hint = "use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit, as in the TaskQueue"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"queue name {name[:80]!r} is not allowed")


class EnvelopeInvalid(Invalid):
    """Bytes on a task subject are not a task of a version known here."""

    reason = "EnvelopeInvalid"
    hint = "see the dead letter for the raw bytes; publish tasks through a Galley client"

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"not a task: {problem}")


class ServerInvalid(Invalid):
    """The server's address is not a NATS URL."""

    reason = "ServerInvalid"
    hint = "write it as nats://HOST:4222 (--server, GALLEY_SERVER)"

    def __init__(self, server: str, problem: str) -> None:
        self.server, self.problem = server, problem
        super().__init__(f"{server!r} is not the address of a NATS server: {problem}")


class CredentialsInvalid(Invalid):
    """The credentials file for NATS cannot be read or is malformed."""

    reason = "CredentialsInvalid"
    hint = (
        "on a cluster it is the key nats.creds of the Secret galley-QUEUE-producer "
        "(or -worker, -manager); name the file with --credentials or GALLEY_CREDENTIALS"
    )

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"no credentials in {source}: {problem}")


class TlsInvalid(Invalid):
    """A file with certificates or a key for TLS cannot be used."""

    reason = "TlsInvalid"
    hint = (
        "name files in PEM: --tls-ca, --tls-certificate, --tls-key, or GALLEY_TLS_CA, "
        "GALLEY_TLS_CERTIFICATE, GALLEY_TLS_KEY"
    )

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"no TLS with {source}: {problem}")
