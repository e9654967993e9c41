"""How much room JetStream has, for Prometheus: read now and then, and shown as it was read last."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.series import Kind, Series

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0

USED: Final = Series(
    "galley_broker_storage_used_bytes",
    Kind.GAUGE,
    "Disk that the streams of Galley take.",
)
RESERVED: Final = Series(
    "galley_broker_storage_reserved_bytes", Kind.GAUGE, "Disk that streams have set aside, used or not."
)
LIMIT: Final = Series(
    "galley_broker_storage_limit_bytes", Kind.GAUGE, "Disk they may take together; absent if it is not known."
)
STREAMS: Final = Series("galley_broker_streams", Kind.GAUGE, "Streams there are.")
CONSUMERS: Final = Series("galley_broker_consumers", Kind.GAUGE, "Consumers of streams there are.")

SERIES: Final = (USED, RESERVED, LIMIT, STREAMS, CONSUMERS)


class BrokerFigures(Collector):
    """The figures of JetStream; nothing is shown that was never read."""

    def __init__(self) -> None:
        self._known: dict[Series, float] = {}

    def take(self, account: dict[str, Any], disk: int | None = None) -> None:
        """Take in what JetStream says of the account, and the disk of its servers if that is known."""
        limit = int((account.get("limits") or {}).get("max_storage") or -1)
        limit = limit if limit > 0 else disk or -1
        known = {
            USED: int(account.get("storage") or 0),
            RESERVED: int(account.get("reserved_storage") or 0),
            STREAMS: int(account.get("streams") or 0),
            CONSUMERS: int(account.get("consumers") or 0),
        }
        self._known = {**known, LIMIT: limit} if limit > 0 else {**known}

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics for the library."""
        for series, value in self._known.items():
            yield GaugeMetricFamily(series.name, series.meaning, value=value)

    async def follow(self, broker: Broker, disk: int | None) -> None:
        """Read until cancelled; while the broker is away, what was read last stays."""
        while True:
            try:
                self.take(await broker.api("look at the use of JetStream", "INFO"), disk)
            except BrokerError as error:
                log.warning("use of JetStream not read", extra={"error": str(error)})
            await asyncio.sleep(LOOK_SECONDS)
