"""What a worker's runners are told once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from galley_worker.work import Work

OnOutput: TypeAlias = Callable[[Work | None, str, str], None]
"""Takes a line a handler wrote: whose attempt (None if nobody's), `stdout` or `stderr`, the line."""


def _drop(_work: Work | None, _stream: str, _line: str) -> None:
    """Forget a line."""


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """A program the queue declares as a handler."""

    name: str
    command: tuple[str, ...]
    """The program and its fixed arguments; no shell reads them."""
    input_as: Literal["stdin", "args"] = "stdin"
    """Whether the input is the program's stdin, as JSON, or a list of further arguments."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """Which handlers there are and how they are run."""

    queue: str
    modules: tuple[str, ...] = ()
    """Python modules whose `@task` functions for this queue are its handlers."""
    import_paths: tuple[str, ...] = ()
    """Folders put in front of `sys.path` before the modules are imported."""
    commands: tuple[CommandHandler, ...] = ()
    concurrency: int = 1
    """Handlers running at one time."""
    kill_grace_seconds: float = 5.0
    """How long an `async def` handler or a command may take to obey before it is killed."""
    import_seconds: float = 120.0
    """How long the modules may take to be imported; one that hangs must not hang the worker."""
    output_limit: int = 64 * 1024
    """Bytes of output forwarded for one attempt; what comes after them is counted and dropped."""
    recycle_after: int | None = None
    """Tasks after which a child is replaced; None keeps it for good."""
    on_output: OnOutput = _drop
