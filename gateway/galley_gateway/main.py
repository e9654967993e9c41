"""One life of a gateway process: from its environment to its exit code."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
from typing import Final

from galley.broker.errors import BrokerUnreachable
from galley.client import AsyncClient
from galley.error_group import ungrouped
from galley.errors import GalleyError
from galley.garbage import collect_rarely
from galley.logs import log_as_json, switch_level_by_signal
from galley.otlp_metrics import metrics_sent
from galley_gateway.access import Access
from galley_gateway.app import application, health
from galley_gateway.cluster_access import ClusterAccess
from galley_gateway.gateway import Gateway
from galley_gateway.oidc.access import OidcAccess
from galley_gateway.oidc.provider import Provider
from galley_gateway.server import listen, serving
from galley_gateway.settings import GatewaySettings, listed, read_settings
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config

CANNOT_START: Final = 3
_AGAIN_SECONDS: Final = 2.0

log = logging.getLogger("galley_gateway")


async def _run(settings: GatewaySettings) -> None:
    collect_rarely()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    switch_level_by_signal()
    async with contextlib.AsyncExitStack() as parts:
        cluster = await parts.enter_async_context(Cluster(load_config(settings.kubeconfig)))
        client = await _connected(stop)
        if client is None:
            return
        parts.push_async_exit(client.__aexit__)
        access: Access = ClusterAccess(cluster, listed(settings.audiences))
        provider: Provider | None = None
        if (oidc := settings.oidc()) is not None:
            provider = await parts.enter_async_context(Provider(oidc, settings.oidc_trust()))
            access = OidcAccess(provider, access)
        namespaces = listed(settings.namespaces)
        gateway = Gateway(client.broker, access, settings.limits, namespaces, provider, settings.proxies)
        sent = metrics_sent(os.environ, gateway.metrics.families, service_name="galley-gateway")
        await parts.enter_async_context(sent)
        if settings.health_port:
            probes = listen(settings.host, settings.health_port)
            await parts.enter_async_context(serving(health(gateway), gateway, probes))
        listening = listen(settings.host, settings.port)
        app = application(gateway, listed(settings.hosts))
        await parts.enter_async_context(serving(app, gateway, listening))
        log.info("gateway serves", extra={"port": settings.port, "server": client.broker.server})
        await stop.wait()
        log.info("gateway ends")


async def _connected(stop: asyncio.Event) -> AsyncClient | None:
    """Return an open client; NATS and its credentials may come up after us. None if we are to end first."""
    while not stop.is_set():
        client = AsyncClient()
        try:
            return await client.__aenter__()
        except BrokerUnreachable as error:
            log.warning("no way into the broker", extra={"error": str(error), "hint": error.hint})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_SECONDS):
                await stop.wait()
    return None


def main() -> int:
    """Run a gateway until it is told to end; returns the exit code."""
    log_as_json("INFO")
    try:
        settings = read_settings(os.environ)
        log_as_json(settings.log_level)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with ungrouped():
            asyncio.run(_run(settings))
    except GalleyError as error:
        log.error("gateway cannot work", extra={"error": str(error), "hint": error.hint})  # noqa: TRY400
        return CANNOT_START
    return 0
