"""What all operations share: the connection to the broker, the rights, the limits."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.requests import Request

from galley.broker.connection import Broker
from galley.broker.signals import SignalReader
from galley.client import AsyncClient
from galley.remembered import Remembered
from galley_gateway.access import Access
from galley_gateway.audit_lines import AuditLines
from galley_gateway.limits import Limits, Places, Rates
from galley_gateway.metrics import GatewayMetrics
from galley_gateway.oidc.provider import Provider
from galley_gateway.origin import TrustedProxies

T = TypeVar("T")

LOOKED_SECONDS: Final = 60.0
_LOOKS: Final = 16

GLANCED_SECONDS: Final = 1.5
"""Less than the time between two looks of an open page."""

PATIENCE_SECONDS: Final = 10.0
"""How long a submit is tried again while the broker gives no answer: a caller waits for it."""


@dataclass
class Gateway:
    """One gateway over one connection."""

    broker: Broker
    access: Access
    limits: Limits = field(default_factory=Limits)
    namespaces: tuple[str, ...] = ()
    """Those that the dashboard offers, to those who may see them; empty means all that have queues."""
    provider: Provider | None = None
    """Where people log in; None leaves them a token of the cluster."""
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    """Those that say where requests come from."""

    def __post_init__(self) -> None:
        """Make what is counted."""
        self.places = Places(self.limits)
        self.reader = SignalReader(self.broker)
        self.metrics = GatewayMetrics()
        self.rates = Rates(self.limits.rate)
        self.looked: Remembered[Any] = Remembered(LOOKED_SECONDS, most=_LOOKS)
        """What was found among all tasks of a queue, so that its further pages are not read for again."""
        self.glanced: Remembered[Any] = Remembered(GLANCED_SECONDS, most=_LOOKS)
        """The queues of each namespace, so that many open pages ask the broker no more than one does."""
        self.audit = AuditLines(self.broker)
        self.closing = asyncio.Event()
        """Set when the process is to end: what waits answers at once."""
        self._clients: dict[str, AsyncClient] = {}

    def client(self, namespace: str) -> AsyncClient:
        """Return the client of a namespace."""
        found = self._clients.get(namespace)
        if found is None:
            found = AsyncClient.over(self.broker, namespace, PATIENCE_SECONDS)
            # Only namespaces in which a user has a right get here, so requests alone do not make this grow.
            self._clients[namespace] = found
        return found

    async def while_asked(self, request: Request, work: Awaitable[T]) -> T | None:
        """Return what `work` returns; None if the asking side went away, or the process is to end, first.

        Raises:
            BodyTooSlow, BodyTooLarge: the request goes on, but not as it may.
        """
        working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
        each_of: tuple[asyncio.Future[Any], ...] = (
            working, gone, asyncio.ensure_future(self.closing.wait()),
        )  # fmt: skip
        try:
            await asyncio.wait(each_of, return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and gone.done():
                gone.result()
            return working.result() if working.done() else None
        finally:
            for each in each_of:
                each.cancel()
            await asyncio.wait(each_of)
            for each in each_of:
                if not each.cancelled():
                    each.exception()  # of what came too late, nothing is said


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
