"""What a worker's runners are told once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from galley_worker.runners.frames import Progressed, Saved
from galley_worker.work import Work


class Line(NamedTuple):
    """A line of output, or a notice of the worker about an attempt."""

    work: Work | None
    """The attempt; None if the line belongs to none."""
    stream: Literal["stdout", "stderr", "log", "galley"]
    """Where it was written; `log` is a line of Python's `logging`, `galley` a notice."""
    text: str
    level: int = logging.INFO
    logger: str = ""
    """Name of the logger, for a line of a log."""
    fields: dict[str, Any] | None = None
    """What `extra` added to the record of which this is the first line."""


OnLine: TypeAlias = Callable[[Line], None]
OnReport: TypeAlias = Callable[[Work, Progressed | Saved], None]


def _drop(_line: Line) -> None:
    """Forget a line."""


def _look_at_nothing() -> None:
    """Stop nothing."""


def _ignore(_work: Work, _report: Progressed | Saved) -> None:
    """Forget a report."""


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """A program the queue declares as a handler."""

    name: str
    command: tuple[str, ...]
    """The program and its fixed arguments; no shell reads them."""
    input_as: Literal["stdin", "args"] = "stdin"
    """Whether the input is the program's stdin, as JSON, or a list of further arguments."""


@dataclass(frozen=True, slots=True)
class HttpHandler:
    """A URL the queue declares as a handler."""

    name: str
    url: str
    """Where tasks are POSTed."""
    keys: Path
    """Where the keys are that sign the requests."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """Which handlers there are and how they are run."""

    queue: str
    modules: tuple[str, ...] = ()
    """Python modules whose `@task` functions for this queue are its handlers."""
    import_paths: tuple[str, ...] = ()
    """Folders put in front of `sys.path` before the modules are imported."""
    commands: tuple[CommandHandler, ...] = ()
    http: tuple[HttpHandler, ...] = ()
    namespace: str = ""
    """Namespace of the queue, which receivers of requests are told."""
    preload: tuple[str, ...] = ()
    """Modules imported before the fork, whose memory, and all else, the children share."""
    concurrency: int = 1
    """Handlers running at one time."""
    kill_grace_seconds: float = 5.0
    """How long an `async def` handler or a command may take to obey before it is killed."""
    import_seconds: float = 120.0
    """How long the modules may take to be imported; one that hangs must not hang the worker."""
    output_limit: int = 64 * 1024
    """Bytes of output forwarded for one attempt; what comes after them is counted and dropped."""
    recycle_tasks: int | None = None
    """Tasks after which a child is replaced; None keeps it."""
    recycle_bytes: int | None = None
    """Resident memory above which a child is replaced once it is idle; None keeps it."""
    leave_seconds: float = 5.0
    """How long a child may take for its stop hooks, `atexit` handlers and threads before it is killed."""
    log_level: str = "INFO"
    """Least level of the `logging` records that handlers write."""
    spool: str = ""
    """Folder for what handlers return and is to be stored as an object."""
    on_line: OnLine = _drop
    """Takes what handlers write and what there is to say about their attempts."""
    on_report: OnReport = _ignore
    """Takes the progress and the checkpoints of attempts."""
    before_orders: Callable[[], None] = _look_at_nothing
    """Called just before works begin: are written to a child or a URL, or their program starts. Those it
    stops do not begin."""

    def notice(self, work: Work | None, text: str) -> None:
        """Pass on a notice about an attempt."""
        self.on_line(Line(work, "galley", text, logging.WARNING))
