"""kopf's part: the one watch of TaskQueues. Its handler records what each queue is now.

What is done about a change is decided elsewhere (`queues.queues`, `intake.intake`), so nothing is retried
here, and kopf writes nothing into the queues: no annotation, no finalizer. It runs in our event loop, by
`spawn_tasks`; `kopf.operator` would cancel every task in the loop when it ends.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import kopf

from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.cluster.session import session_for
from galley_operator.faults import Faults
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

_KIND: Final = (TASKQUEUES.group, TASKQUEUES.version, TASKQUEUES.plural)

_RESTART_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 10.0


def registry_of(queues: KnownQueues, config: ClusterConfig, faults: Faults) -> kopf.OperatorRegistry:
    """Return the handlers."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=config.server, aiohttp_session=session_for(config))

    async def seen(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name for it
        try:
            (queues.gone if type == "DELETED" else queues.seen)(dict(body))
        except Exception as error:
            faults.caught("TaskQueue seen", error, str(body.metadata.name))

    kopf.on.login(registry=registry)(login)
    kopf.on.event(*_KIND, id="seen", registry=registry)(seen)
    return registry


class _NothingKept(kopf.DiffBaseStorage):
    """Reads no state from annotations: who may edit a queue can write what cannot be read."""

    def fetch(self, *, body: kopf.Body) -> None:  # noqa: ARG002 - kopf's names
        return

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Write nothing."""


def kopf_settings() -> kopf.OperatorSettings:
    """Return how kopf is to behave."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NothingKept()
    settings.persistence.finalizer = "no finalizer"  # not a name that an object can have: none is removed
    settings.posting.enabled = False
    settings.scanning.disabled = True  # else it needs rights on all CRDs and namespaces
    settings.process.ultimate_exiting_timeout = None  # else it kills the process some time after its end
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 600
    settings.watching.inactivity_timeout = 180  # the server's first bookmark comes after two minutes
    settings.watching.chunk_size = 500
    return settings


class QueueWatch:
    """Keeps `queues` up to date for as long as `run` runs."""

    def __init__(
        self,
        config: ClusterConfig,
        namespaces: Sequence[str],
        queues: KnownQueues,
        faults: Faults,
        catch_signals: Callable[[], None],
    ) -> None:
        """Describe what to watch.

        Args:
            config: how the API server is reached.
            namespaces: to be watched; all if empty.
            queues: what is kept up to date.
            faults: counts exceptions in the handler.
            catch_signals: installs our signal handlers, which kopf replaces when it starts.
        """
        self._config, self._namespaces, self._queues = config, tuple(namespaces), queues
        self._faults, self._catch_signals = faults, catch_signals
        logging.getLogger("kopf").setLevel(logging.WARNING)

    async def run(self) -> None:
        """Watch until cancelled; should kopf end by itself, it is started again."""
        while True:
            await self._run_once()
            log.error("watch of queues ended", extra={"again_in_seconds": _RESTART_SECONDS})
            await asyncio.sleep(_RESTART_SECONDS)

    async def _run_once(self) -> None:
        tasks = await kopf.spawn_tasks(
            registry=registry_of(self._queues, self._config, self._faults),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        self._catch_signals()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
