"""Serves what an ended `galley dev` kept, for the time of one command that only reads."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from galley import dev_file
from galley.cli.command import Serving
from galley.target import DEFAULT_NAMESPACE, NAMESPACE_VARIABLE, Target
from galley_local.errors import ServerFolderInUse
from galley_local.nats_server import STORE_BYTES, NatsServer
from galley_local.project import Project

_TRIES: Final = 40
_PAUSE_SECONDS: Final = 0.25


def kept(folder: Path, namespace: str | None, environ: Mapping[str, str]) -> Serving | None:
    """Return what serves the tasks that a `galley dev` kept at or above a folder; None if there are none.

    Args:
        folder: where to begin looking.
        namespace: the one to look at; else `GALLEY_NAMESPACE`, else that of the last run.
        environ: environment variables.
    """
    project = next((each for each in (folder, *folder.parents) if _store(each).is_dir()), None)
    return _serving(project, namespace or environ.get(NAMESPACE_VARIABLE)) if project is not None else None


@asynccontextmanager
async def _serving(project: Path, namespace: str | None) -> AsyncIterator[Target]:
    """Serve the tasks kept in a project folder; no worker runs.

    Raises:
        LocalError: if the server does not start.
    """
    server = NatsServer(Project(project).nats, max_store_bytes=STORE_BYTES)
    for tries in range(1, _TRIES + 1):
        try:
            await server.start()
            break
        except ServerFolderInUse:  # another command is looking, too
            if tries == _TRIES:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
    try:
        yield Target(server.url, namespace or _last_namespace(project), local=True)
    finally:
        await server.stop()


def _store(project: Path) -> Path:
    return project / dev_file.FOLDER / "nats" / "jetstream"


def _last_namespace(project: Path) -> str:
    served = dev_file.queue_file(project, "", "").parent
    names = sorted(file.name for file in served.iterdir()) if served.is_dir() else []
    return names[0].partition(".")[0] if names else DEFAULT_NAMESPACE
