"""Notices that code or manifests were edited while `galley dev` runs.

A worker imports its modules when it starts, and may start further processes later, which import them as
they are then. So that old and new code do not run side by side unnoticed, the workers of a queue are
replaced when a file they import has changed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from galley_local.errors import FilesUnusable
from galley_local.module import Module, file_of, import_file
from galley_local.plan import LocalQueue, undeclared

_LOOK_SECONDS: Final = 0.5
_NAMED_FILES: Final = 3

Stamp = tuple[int, int, int]


class CodeWatch:
    """Watches the files of some queues; `run` does so until it is cancelled."""

    def __init__(
        self,
        queues: Collection[LocalQueue],
        manifests: Iterable[Path],
        *,
        replace: Callable[[LocalQueue], Awaitable[None]],
        say: Callable[[str], None],
        reread: Callable[[Path], Awaitable[Collection[LocalQueue]]],
        tick: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(_LOOK_SECONDS),
    ) -> None:
        """Describe what to watch.

        Args:
            queues: the queues that are served.
            manifests: the files they were read from.
            replace: has others take the places of all workers of a queue, and returns once these take nothing
                more.
            say: tells the person what happens.
            reread: takes over what a changed manifest says, and returns the queues as they are then.
            tick: returns when it is time to look again.
        """
        self._queues, self._replace, self._say, self._tick = queues, replace, say, tick
        self._reread = reread
        self._manifests = {path: _stamp(path) for path in manifests}
        self._files: dict[tuple[str, str], dict[Path, Stamp]] = {
            queue.name: _stamps(_given_files(queue)) for queue in queues
        }

    async def begin(self) -> None:
        """Import the modules of manifests once, to learn their files and what they declare."""
        for queue in self._queues:
            await self._learn(queue, first=True)

    async def run(self) -> None:
        """Begin, and watch."""
        await self.begin()
        while True:
            await self._tick()
            await self.look()

    async def look(self) -> None:
        """Replace the workers whose code has changed since the last look."""
        for path, before in self._manifests.items():
            now = _stamp(path)
            if now not in (None, before):
                self._manifests[path] = now
                self._queues = await self._reread(path)
                for queue in self._queues:
                    await self._learn(queue)
        for queue in self._queues:
            known = self._files[queue.name]
            changed = [file for file, before in known.items() if (now := _stamp(file)) and now != before]
            if not changed:
                continue
            known.update(_stamps(changed))
            names = ", ".join(file.name for file in changed[:_NAMED_FILES])
            more = f" and {len(changed) - _NAMED_FILES} more" if len(changed) > _NAMED_FILES else ""
            grace = queue.resource.spec.worker.grace_period_seconds
            # First: what is submitted once it has been said runs with the new code.
            await self._replace(queue)
            self._say(
                f"{names}{more} changed: workers of {queue.name[1]} are replaced; running tasks may finish "
                f"with the old code within {grace} s, then they start again with the new"
            )
            await self._learn(queue)

    async def _learn(self, queue: LocalQueue, *, first: bool = False) -> None:
        """Learn which files the modules of a queue consist of, as far as they can be imported now."""
        files: set[Path] = set()
        known_already = {given.name for given in queue.given} if first else set()
        for name in queue.resource.spec.worker.modules:
            file = file_of(name, queue.import_paths)
            if file is None or name in known_already:
                continue
            files.add(file)
            with contextlib.suppress(FilesUnusable, OSError):  # workers will say what is wrong
                module = await import_file(file, file, name, queue.import_paths)
                files.update(map(Path, module.loaded.values()))
                if first:
                    self._remark(module)
        known = self._files[queue.name]
        known.update({file: stamp for file, stamp in _stamps(files).items() if file not in known})

    def _remark(self, module: Module) -> None:
        served = {queue.name[1]: True for queue in self._queues}
        for name, handlers in module.handlers.items():
            own = [handler for handler in handlers if handler not in module.anywhere]
            if own and name not in served:
                about = replace(module, handlers={name: own})
                self._say(f"{undeclared(about, name, served)} No worker runs them")


def _given_files(queue: LocalQueue) -> set[Path]:
    return {Path(file) for module in queue.given for file in module.loaded.values()}


def _stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    return {file: stamp for file in files if (stamp := _stamp(file)) is not None}


def _stamp(file: Path) -> Stamp | None:
    """Return what differs once a file was edited; None while it is away, as editors make it for a moment."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
