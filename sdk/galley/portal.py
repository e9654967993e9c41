"""Runs an asynchronous client for programs that are not: in an event loop in a thread of its own."""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from galley.batch import SubmitInterrupted
from galley.broker.connection import NOT_PICKLED
from galley.client import AsyncClient
from galley.errors import ClientClosed

T = TypeVar("T")

_CLOSE_SECONDS: Final = 10.0
"""How long closing waits for the connection to end; it is cut off afterwards."""
_CANCEL_SECONDS: Final = 5.0
"""How long an interrupted call may take to say what had been done."""


class _Open(NamedTuple):
    """An open client, and what ends it."""

    client: AsyncClient
    loop: asyncio.AbstractEventLoop
    ending: asyncio.Event
    thread: threading.Thread
    waiting: "set[Future[Any]]"
    """Calls without an answer."""
    ended: threading.Event
    """Set when the loop takes no calls any more, before `waiting` is looked through for the last time."""


class Portal:
    """The thread, event loop and connection of one synchronous client; opened at its first call.

    All threads of a process share it. A process that was forked opens another one.
    """

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        """Describe it.

        Args:
            make: returns a client that was not entered yet; called once for each process and attempt to
                connect.
        """
        self._make = make
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._closed = False
        _PORTALS.add(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(NOT_PICKLED)

    def open(self) -> None:
        """Connect, unless that was done.

        Raises:
            ClientClosed: if it was closed.
            BrokerUnreachable, BrokerTooOld, ServerInvalid: there is no usable broker; a later call tries
                again.
            CredentialsInvalid, CredentialsExpired, AccessRefused: authentication failed.
        """
        self._opened()

    def call(self, use: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the client in its event loop, and return what it returns.

        If the waiting thread is interrupted (Ctrl-C), the coroutine is cancelled; `SubmitInterrupted.of`
        finds what it had submitted.

        Raises:
            ClientClosed: if the client is closed, before or meanwhile.
            BaseException: whatever the coroutine raises, and what `open` does.
        """
        portal = self._opened()
        done: Future[T] = Future()
        calling: list[asyncio.Task[None]] = []

        async def run() -> None:
            try:
                done.set_result(await use(portal.client))
            except BaseException as error:  # it belongs to the thread that waits
                with contextlib.suppress(InvalidStateError):  # which was told that the loop has ended
                    done.set_exception(error)

        def start() -> None:
            calling.append(portal.loop.create_task(run()))

        def cancel() -> None:
            calling[0].cancel()

        portal.waiting.add(done)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so has ended
            portal.loop.call_soon_threadsafe(start)
        if portal.ended.is_set():
            portal.waiting.discard(done)
            raise ClientClosed(portal.client.broker.server)
        try:
            return done.result()
        except asyncio.CancelledError:
            raise ClientClosed(portal.client.broker.server) from None
        except (KeyboardInterrupt, SystemExit) as interrupt:
            if not done.done():
                with contextlib.suppress(RuntimeError, TimeoutError):  # the loop has ended, or is busy
                    portal.loop.call_soon_threadsafe(cancel)
                    interrupt.__cause__ = SubmitInterrupted.of(done.exception(_CANCEL_SECONDS))
            raise
        finally:
            portal.waiting.discard(done)

    def iterate(self, begin: Callable[[AsyncClient], AsyncGenerator[T, None]]) -> Iterator[T]:
        """Yield what an async generator of a client yields, and end it when the caller has enough."""

        async def start(client: AsyncClient) -> AsyncGenerator[T, None]:
            return begin(client)

        async def end(items: AsyncGenerator[T, None]) -> None:
            await items.aclose()

        items = self.call(start)
        try:
            while (item := self.call(lambda _: anext(items, None))) is not None:
                yield item
        finally:
            with contextlib.suppress(ClientClosed):  # it ended with the client
                self.call(lambda _: end(items))

    def close(self) -> None:
        """Close the connection; calls that wait in other threads raise `ClientClosed`."""
        with self._lock:
            self._closed = True
            portal, self._open = self._open, None
        if portal is not None:
            _end(portal)

    def _opened(self) -> _Open:
        with self._lock:
            if self._closed:
                raise ClientClosed(self._make().broker.server)
            if self._open is None:
                self._open = self._connect()
                weakref.finalize(self, _end, self._open)
            return self._open

    def _connect(self) -> _Open:
        opened: Future[_Open] = Future()
        waiting: set[Future[Any]] = set()
        ended = threading.Event()
        make = (
            self._make
        )  # the thread must not keep this object, which closes the client when it is collected

        async def serve() -> None:
            ending = asyncio.Event()
            async with make() as client:
                loop = asyncio.get_running_loop()
                opened.set_result(_Open(client, loop, ending, thread, waiting, ended))
                await ending.wait()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                if opened.done():
                    raise
                opened.set_exception(error)
            finally:
                # A call may have come after the loop had cancelled all others: nothing else would wake it.
                ended.set()
                for call in tuple(waiting):
                    with contextlib.suppress(InvalidStateError):
                        call.set_exception(asyncio.CancelledError())

        thread = threading.Thread(target=run, name="galley client", daemon=True)
        thread.start()
        try:
            return opened.result()
        except (KeyboardInterrupt, SystemExit):
            opened.add_done_callback(_end_unused)
            raise

    def _forget(self) -> None:
        """Start again in a forked process: the thread is not there, and the lock may be held for good."""
        if self._open is not None:
            _LEFT_TO_THE_PARENT.append(self._open)
        self._lock, self._open = threading.Lock(), None


def _end_unused(opened: "Future[_Open]") -> None:
    """End what was opened for a call that did not wait for it."""
    if opened.exception() is None:
        _end(opened.result())


def _end(portal: _Open) -> None:
    if any(portal is left for left in _LEFT_TO_THE_PARENT) or portal.loop.is_closed():
        return
    with contextlib.suppress(RuntimeError):  # it ends already
        portal.loop.call_soon_threadsafe(portal.ending.set)
    if threading.current_thread() is not portal.thread:
        portal.thread.join(_CLOSE_SECONDS)


_PORTALS: Final[weakref.WeakSet[Portal]] = weakref.WeakSet()
_LEFT_TO_THE_PARENT: Final[list[_Open]] = []
"""Of a forked process: kept, since collecting an event loop of another process would close what it shares."""


def _after_fork() -> None:
    for portal in _PORTALS:
        portal._forget()  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)
