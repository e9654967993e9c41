"""The main function of a worker process: from its environment to its exit code."""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from galley.errors import GalleyError
from galley.garbage import collect_rarely
from galley.inside import mark_worker
from galley.logs import log_as_json, switch_level_by_signal
from galley.resources.task_queue import TaskQueue
from galley.target import NAMESPACE_VARIABLE
from galley_worker.errors import ModuleImportFailed, StartHookFailed
from galley_worker.settings import WorkerSettings, read_queue, read_settings
from galley_worker.supervisor import Supervisor

CANNOT_START: Final = 3

_MOST_BYTES: Final = 4000
"""Of the termination message: the kubelet reads 4 KiB."""

log = logging.getLogger("galley_worker")


async def _run(settings: WorkerSettings, queue: TaskQueue) -> None:
    collect_rarely()
    mark_worker(queue.metadata.namespace, queue.metadata.name)
    # Clients in handlers use the namespace of their queue, unless it is said otherwise.
    os.environ.setdefault(NAMESPACE_VARIABLE, queue.metadata.namespace)
    supervisor = Supervisor(settings, queue)
    switch_level_by_signal(supervisor.log_all)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


def main() -> int:
    """Run a worker until it is told to stop; return the exit code."""
    code = 0
    log_as_json("INFO")
    try:
        settings = read_settings(os.environ)
        log_as_json(settings.log_level, worker=settings.worker)
        queue = read_queue(settings.queue_manifest)
        # Together with the task's id these name it where the logs of a whole cluster are collected.
        namespace, name = queue.metadata.namespace, queue.metadata.name
        log_as_json(settings.log_level, worker=settings.worker, namespace=namespace, queue=name)
        asyncio.run(_run(settings, queue))
    except* GalleyError as errors:
        for error in errors.exceptions:
            hint = error.hint if isinstance(error, GalleyError) else ""
            trace = error.trace if isinstance(error, ModuleImportFailed | StartHookFailed) else ""
            log.error(  # noqa: TRY400 - what matters of the traceback is that of the module
                "worker cannot work", extra={"error": str(error), "hint": hint, "traceback": trace}
            )
            _write_termination_log(f"{error}; {hint}" if hint else str(error), trace)
        code = CANNOT_START
    return code


def _write_termination_log(words: str, trace: str) -> None:
    """Write why this worker cannot start where the kubelet reads it; the queue's condition shows it."""
    said = "\n".join(part for part in (words, trace) if part).encode(errors="backslashreplace")
    # Read directly, since the settings may be what is wrong.
    if path := os.environ.get("GALLEY_TERMINATION_LOG"):
        with suppress(OSError):
            Path(path).write_bytes(said[:_MOST_BYTES] + b"\n")
