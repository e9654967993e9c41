"""kopf's part: it watches TaskQueues, and its handlers say which of them something happened to.

What is done about it is not theirs (see `queues.queues`), so there is nothing to retry here, and neither
timers, daemons nor delete handlers, each of which would put a finalizer on every queue.

kopf runs in a thread with a loop of its own, since in ours it would take over SIGTERM and, when it ends,
cancel every task that was created after it was started.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import kopf

from galley_operator.cluster.config import ClusterConfig
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.cluster.session import session_for

log = logging.getLogger(__name__)

Heard = Callable[[tuple[str, str]], None]
"""Is told the namespace and name of a queue."""

_PREFIX: Final = "galley.dev"
_KIND: Final = (TASKQUEUES.group, TASKQUEUES.version, TASKQUEUES.plural)

_RESTART_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 10.0


def registry_of(heard: Heard, config: ClusterConfig) -> kopf.OperatorRegistry:
    """Return the handlers."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=config.server, aiohttp_session=session_for(config))

    async def written(namespace: str | None, name: str | None, **_: Any) -> None:
        heard((namespace or "", name or ""))

    async def seen(type: str | None, namespace: str | None, name: str | None, **_: Any) -> None:  # noqa: A002
        if type == "DELETED":
            heard((namespace or "", name or ""))

    kopf.on.login(registry=registry)(login)
    kopf.on.create(*_KIND, id="created", registry=registry)(written)
    kopf.on.update(*_KIND, id="updated", registry=registry)(written)
    kopf.on.resume(*_KIND, id="resumed", registry=registry)(written)
    kopf.on.event(*_KIND, id="seen", registry=registry)(seen)
    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """Return how kopf is to behave."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # else it needs rights on all CRDs and namespaces
    settings.process.ultimate_exiting_timeout = None  # else it kills the process that waits for it
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.server_timeout = 600
    settings.watching.inactivity_timeout = 180  # the server's first bookmark comes after two minutes
    settings.watching.chunk_size = 500
    settings.persistence.finalizer = f"{_PREFIX}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=_PREFIX)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=_PREFIX)
    return settings


class QueueWatch:
    """Runs kopf beside everything else; `heard` is called in the loop that runs this."""

    def __init__(self, config: ClusterConfig, namespaces: Sequence[str], heard: Heard) -> None:
        """Args: namespaces: to be watched; all if empty."""
        self._config, self._namespaces, self._heard = config, tuple(namespaces), heard
        # Its warning that it gets no signals is what we want.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        logging.getLogger("kopf").setLevel(logging.WARNING)

    async def run(self) -> None:
        """Watch until cancelled; should kopf end by itself, it is started again."""
        while True:
            problem = await self._run_once()
            log.error("watch of queues ended", extra={"error": problem})
            await asyncio.sleep(_RESTART_SECONDS)

    async def _run_once(self) -> str:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()
        thread = _Thread(
            lambda stop: self._operate(loop, stop),
            lambda problem: loop.call_soon_threadsafe(_set, ended, problem),
        )
        thread.start()
        try:
            return await asyncio.shield(ended)
        finally:
            thread.stop()
            if not ended.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await ended

    async def _operate(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        def heard(queue: tuple[str, str]) -> None:
            loop.call_soon_threadsafe(self._heard, queue)

        await kopf.operator(
            registry=registry_of(heard, self._config),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=stop,
        )


class _Thread:
    """A thread with a loop, which runs one coroutine until it is stopped."""

    def __init__(
        self,
        work: Callable[[asyncio.Event], Any],
        ended: Callable[[str], object],
    ) -> None:
        self._work, self._ended = work, ended
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # its loop has ended in between
                self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        problem = "it ended by itself"
        try:
            asyncio.run(self._main())
        except BaseException as error:
            problem = f"{type(error).__name__}: {error}"
            log.debug("kopf ended with an error", exc_info=True)
        finally:
            with suppress(RuntimeError):  # the process is ending, and its loop with it
                self._ended(problem)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if not self._stopped.is_set():
            await self._work(self._stop)


def _set(future: "asyncio.Future[str]", value: str) -> None:
    if not future.done():
        future.set_result(value)
