"""Claims: of several installations of the chart, one serves a namespace.

Two operators that serve the same TaskQueues overwrite each other's objects, and each submits the Tasks to a
NATS of its own, so they run twice. So the leader holds a Lease in each namespace it serves, under the name of
its installation. The Lease is not given back when an operator ends: its next leader goes on at once, and
another installation a minute later.

A user who may write Leases in a namespace can take its claim. That keeps this one namespace from being
served, and costs no other anything.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, RightsMissing
from galley_operator.cluster.resource import EVENTS, LEASES
from galley_operator.leadership import Leadership, LeaseTimes

log = logging.getLogger(__name__)

CLAIM: Final = "galley-serves"
"""Name of the Lease in each namespace that is served."""

TIMES: Final = LeaseTimes(lease_seconds=60, renew_seconds=45, retry_seconds=15)
AGAIN_SECONDS: Final = 5.0
"""Time between two tries to get a claim."""

TELL_SECONDS: Final = 60.0
"""Time between two log lines and events about one namespace: its Lease can change at any time."""

_REASON: Final = "ServedElsewhere"


class Claim:
    """The claim of one installation on one namespace: `acquire` it, then `hold` it, and again."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        installation: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: installation: namespace and name of the operator's Deployment."""
        self.namespace = namespace
        self.holder = ""
        """Which other installation has the claim; empty if none has, or it is not known."""
        self._cluster, self._installation, self._clock = cluster, installation, clock
        self._lease = Leadership(cluster, (namespace, CLAIM), installation, TIMES, clock)
        self._held = False
        self._told: tuple[str, float] = "", float("-inf")
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the namespace cannot be served, as a sentence; empty if it can."""
        if self.holder:
            return (
                f"namespace {self.namespace} is served by the operator {self.holder}, as its Lease {CLAIM} "
                "says: uninstall one of the two releases, or take the namespace out of operator.namespaces "
                "of one; if there is no such operator, delete the Lease"
            )
        return self._problem

    async def acquire(self) -> None:
        """Return once no other installation serves the namespace."""
        while True:
            if await self._attempt():
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def hold(self) -> None:
        """Renew until another installation has the claim, or it could not be renewed in time."""
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(TIMES.retry_seconds)
            if await self._attempt():
                renewed_at = self._clock()
            elif self.holder or self._clock() - renewed_at >= TIMES.renew_seconds:
                return

    async def _attempt(self) -> bool:
        """Get or renew the claim once; returns whether the namespace may be served now."""
        try:
            async with asyncio.timeout(TIMES.retry_seconds):
                mine = await self._lease.attempt()
        except RightsMissing as error:
            # Rights of an earlier release, or made by hand. Nothing shows that another installation serves.
            self._tell("namespace not claimed", "", str(error))
            self.holder = self._problem = ""
            return True
        except (ClusterError, TimeoutError) as error:
            # There is no such namespace (yet), or no answer.
            self.holder = ""
            said = str(error) or "no answer"
            self._problem = f"namespace {self.namespace} is not served: its Lease {CLAIM}: {said}"
            self._tell("namespace not claimed yet", "", said)
            return False
        self.holder = "" if mine else self._lease.leader
        self._problem = (
            "" if mine else f"namespace {self.namespace} is not served: its Lease changes too often"
        )
        if self.holder and self._tell("namespace is served elsewhere", self.holder, self.problem):
            await self._write_event()
        elif mine:
            self._told = "", float("-inf")
        return mine

    def _tell(self, event: str, holder: str, problem: str) -> bool:
        """Log what is new, or was last told a while ago; returns whether it was."""
        what, at = self._told
        new = what != f"{event} {holder}"
        # A holder that changes all the time must not fill the log.
        if not new or self._clock() - at < TELL_SECONDS:
            return False
        self._told = f"{event} {holder}", self._clock()
        level = logging.ERROR if holder else logging.WARNING
        log.log(level, event, extra={"namespace": self.namespace, "error": problem})
        return True

    async def _write_event(self) -> None:
        regarding = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "name": CLAIM}
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": f"{CLAIM}.{time.time_ns():x}", "namespace": self.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "galley.dev/operator",
            "reportingInstance": self._installation.replace("/", "."),
            "action": _REASON,
            "reason": _REASON,
            "type": "Warning",
            "note": f"{self._installation} waits: {self.problem}",
            "regarding": {**regarding, "namespace": self.namespace},
        }
        try:
            await self._cluster.create(EVENTS, body)
        except ClusterError as error:
            log.warning("event not written", extra={"error": str(error), "hint": error.hint})
