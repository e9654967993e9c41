"""Claims: of several installations of the chart, one serves a namespace.

Two operators that serve the same TaskQueues overwrite each other's objects, and each submits the Tasks to a
NATS of its own, so they run twice. So the leader holds a Lease in each namespace it serves, under the name of
its installation, and does nothing before it has all of them. The Lease is not given back when an operator
ends: its next leader goes on at once, and another installation a minute later.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectNotFound, RightsMissing
from galley_operator.cluster.resource import EVENTS, LEASES
from galley_operator.errors import LeadershipLost
from galley_operator.leadership import Leadership, LeaseTimes

log = logging.getLogger(__name__)

CLAIM: Final = "galley-serves"
"""Name of the Lease in each namespace that is served."""

TIMES: Final = LeaseTimes(lease_seconds=60, renew_seconds=45, retry_seconds=15)
_AGAIN_SECONDS: Final = 5.0
_REASON: Final = "ServedElsewhere"


class Claims:
    """The claims of one installation."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: tuple[str, ...],
        installation: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: namespaces: to be served; installation: namespace and name of the operator's Deployment."""
        self._cluster, self._installation = cluster, installation
        self._claims = {
            each: Leadership(cluster, (each, CLAIM), installation, TIMES, clock) for each in namespaces
        }
        self._told: dict[str, str] = {}

    @property
    def problem(self) -> str:
        """Which namespaces another installation serves, as a sentence; empty if none is."""
        return "; ".join(
            _sentence(namespace, claim.leader)
            for namespace, claim in self._claims.items()
            if claim.leader and not claim.leading
        )

    async def acquire(self) -> None:
        """Return once no other installation serves any of the namespaces."""
        while True:
            for namespace, claim in list(self._claims.items()):
                if not claim.leading:
                    await self._take(namespace, claim)
            if all(claim.leading for claim in self._claims.values()):
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    def held(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield what renews each claim; raises `LeadershipLost` if another installation has it."""
        for namespace, claim in self._claims.items():
            yield self._hold(namespace, claim)

    async def _hold(self, namespace: str, claim: Leadership) -> None:
        while True:
            await asyncio.sleep(TIMES.retry_seconds)
            try:
                mine = await claim.attempt()
            except ClusterError as error:
                # The namespace may be gone; without the API server the operator stops leading anyway.
                log.warning("claim not renewed", extra={"namespace": namespace, "error": str(error)})
                continue
            if not mine:
                raise LeadershipLost(f"{namespace}/{CLAIM}", f"{claim.leader} has it")

    async def _take(self, namespace: str, claim: Leadership) -> None:
        try:
            if await claim.attempt():
                return
        except (RightsMissing, ObjectNotFound) as error:
            # Rights of an earlier release, or made by hand; or there is no such namespace (yet).
            log.warning("namespace not claimed", extra={"namespace": namespace, "error": str(error)})
            del self._claims[namespace]
            return
        except ClusterError as error:
            log.warning("namespace not claimed yet", extra={"namespace": namespace, "error": str(error)})
            return
        if self._told.get(namespace) != claim.leader:
            self._told[namespace] = claim.leader
            problem = _sentence(namespace, claim.leader)
            log.error("namespace is served elsewhere", extra={"namespace": namespace, "error": problem})
            await self._tell(namespace, problem)

    async def _tell(self, namespace: str, problem: str) -> None:
        regarding = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "name": CLAIM}
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{CLAIM}.{time.time_ns():x}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "galley.dev/operator",
            "reportingInstance": self._installation.replace("/", "."),
            "action": _REASON,
            "reason": _REASON,
            "type": "Warning",
            "note": f"{self._installation} waits: {problem}",
            "regarding": {**regarding, "namespace": namespace},
        }
        try:
            await self._cluster.create(EVENTS, body)
        except ClusterError as error:
            log.warning("event not written", extra={"error": str(error), "hint": error.hint})


def _sentence(namespace: str, other: str) -> str:
    return (
        f"namespace {namespace} is served by the operator {other}: uninstall one of the two releases, or "
        "take the namespace out of operator.namespaces of one"
    )
