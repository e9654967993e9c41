"""The HTTP API and the dashboard of `galley dev`: on loopback, without login."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from galley.broker.connection import Broker
from galley_local.plan import Plan

HOST: Final = "127.0.0.1"
NAMES: Final = (HOST, "localhost")
"""A request for any other name is refused: a page whose name leads to this machine must not get in."""


@asynccontextmanager
async def served(broker: Broker, plan: Plan, port: int | None) -> AsyncIterator[str]:
    """Serve for as long as the block, and yield the address.

    Raises:
        PortTaken: if the port is used by another program.
    """
    # A fifth of a second that `galley dev --until-done` does not need.
    from galley_gateway.access import OpenAccess  # noqa: PLC0415
    from galley_gateway.app import application  # noqa: PLC0415
    from galley_gateway.gateway import Gateway  # noqa: PLC0415
    from galley_gateway.server import listen, serving  # noqa: PLC0415

    namespaces = tuple(dict.fromkeys(namespace for namespace, _ in plan.queues))
    gateway = Gateway(broker, OpenAccess(), namespaces=namespaces)
    listening = listen(HOST, port or 0)
    async with serving(application(gateway, NAMES), gateway, listening):
        yield f"http://{HOST}:{listening.getsockname()[1]}"
