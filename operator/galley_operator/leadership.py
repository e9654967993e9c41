"""Leader election by a Lease, so that of several replicas one writes.

The holder of the Lease renews it. Another takes it once it has not changed for its whole duration, counted
from when that other saw it last by a clock of its own: clocks of two machines are never compared. Who
cannot renew in time stops leading before another can begin.

A Lease fences nothing: the leader of a moment ago may still have a request under way. Everything the
operator writes is idempotent or has a precondition.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import LEASES
from galley_operator.errors import LeadershipLost

log = logging.getLogger(__name__)

_SILENCE: Final = "nothing answered"

_MICROSECONDS: Final = "%Y-%m-%dT%H:%M:%S.%fZ"

_LONGEST_SECONDS: Final = 600.0
"""What a Lease that is not renewed is believed at most, whatever duration stands in it."""

_MOST_TRANSITIONS: Final = 2**31 - 1
"""The API server accepts no higher count."""

_NAME_LENGTH: Final = 100


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Durations of the election; the defaults are those of Kubernetes' own controllers."""

    lease_seconds: float = 15.0
    """How long others wait for a renewal."""
    renew_seconds: float = 10.0
    """How long the leader tries to renew before it gives up; less than others wait."""
    retry_seconds: float = 2.0
    """Time between two tries, to get the Lease or to renew it."""


class Leadership:
    """One candidate for a Lease: `acquire` until it is held, `hold` for as long as that lasts."""

    def __init__(
        self,
        cluster: Cluster,
        lease: tuple[str, str],
        identity: str,
        times: LeaseTimes = LeaseTimes(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: lease: its namespace and its name; identity: of this candidate, which no other has."""
        self.leader = ""
        """Who holds the Lease, as far as is known and can be shown: others may write anything into it."""
        self.leading = False
        """Whether that is us."""
        self.heard_at = float("-inf")
        """When the Lease was last read from the API server, by the clock."""
        self._cluster, self._identity, self._times, self._clock = cluster, identity, times, clock
        self._namespace, self._name = lease
        self._seen: dict[str, Any] = {}
        self._seen_at = clock()
        self._renewed_at = float("-inf")

    async def acquire(self) -> None:
        """Return once the Lease is held; errors are logged and tried again."""
        while True:
            try:
                async with asyncio.timeout(self._times.renew_seconds):
                    if await self.attempt():
                        return
            except Exception as error:
                known = isinstance(error, ClusterError | TimeoutError)
                hint = error.hint if isinstance(error, ClusterError) else ""
                log.warning(
                    "lease not readable", extra={"error": str(error), "hint": hint}, exc_info=not known
                )
            # Spread, so that candidates that start together do not stay together.
            await asyncio.sleep(self._times.retry_seconds * random.uniform(1.0, 1.2))  # noqa: S311

    async def hold(self) -> None:
        """Renew until cancelled.

        Raises:
            LeadershipLost: if it could not be renewed in time, or another replica has it.
        """
        problem = _SILENCE
        while True:
            await asyncio.sleep(self._times.retry_seconds)
            left = self._times.renew_seconds - (self._clock() - self._renewed_at)
            try:
                async with asyncio.timeout(max(0.0, left)):
                    if await self.attempt():
                        problem = _SILENCE  # what was in the way before is over
                    else:
                        problem = f"{self.leader or 'no replica'} has it"
                        left = 0.0
            except TimeoutError:
                left = 0.0
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
                left = self._times.renew_seconds - (self._clock() - self._renewed_at)
                log.warning(
                    "lease not renewed",
                    extra={"error": problem, "seconds_left": round(left, 1)},
                    exc_info=not isinstance(error, ClusterError),
                )
            if left <= 0:
                self.leading = False
                raise LeadershipLost(f"{self._namespace}/{self._name}", problem)

    async def release(self) -> None:
        """Let the next one have it at once. Errors are no matter: it ends by itself."""
        if not self.leading:
            return
        self.leading = False
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        with suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(self._times.retry_seconds):
                await self._write(spec)
                log.info("lease released", extra={"lease": self._name})

    async def attempt(self) -> bool:
        """Take or renew the Lease once if that is allowed; returns whether it is held now.

        Raises:
            ClusterError: if the API server does not answer, or not with what was asked for.
        """
        began = self._clock()
        try:
            lease = await self._cluster.get(LEASES, self._namespace, self._name)
        except ObjectNotFound:
            return self._take_in(await self._create(), began)
        self._observe(lease)
        holder = _spec(self._seen).get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired:
            return self._take_in(lease, began)
        spec: dict[str, Any] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._times.lease_seconds),
            "renewTime": _now(),
        }
        if holder != self._identity:
            changes = _spec(self._seen).get("leaseTransitions") or 0
            changes = min(changes + 1, _MOST_TRANSITIONS)
            spec |= {"acquireTime": _now(), "leaseTransitions": changes}
        try:
            return self._take_in(await self._write(spec), began)
        except ObjectConflict:
            # Another client was quicker. If it left the Lease to us, its write is as good as our renewal:
            # those who wait for the Lease count from the last change of any kind.
            return self._take_in(await self._cluster.get(LEASES, self._namespace, self._name), began)

    @property
    def _expired(self) -> bool:
        seconds = _spec(self._seen).get("leaseDurationSeconds") or self._times.lease_seconds
        return self._clock() - self._seen_at > min(float(seconds), _LONGEST_SECONDS)

    def _observe(self, lease: dict[str, Any]) -> None:
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen.get("metadata", {}).get("resourceVersion"):
            self._seen, self._seen_at = lease, self._clock()

    def _take_in(self, lease: dict[str, Any], began: float) -> bool:
        self._observe(lease)
        self.heard_at = self._clock()
        holder = _spec(lease).get("holderIdentity") or ""
        leader, leading = shown(holder), holder == self._identity
        if leader != self.leader:
            log.info("leader is", extra={"leader": leader, "lease": self._name, "us": leading})
        self.leader, self.leading = leader, leading
        if leading:
            # Counted from before the request: others may have seen it as early as that.
            self._renewed_at = began
        return leading

    async def _create(self) -> dict[str, Any]:
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._times.lease_seconds),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": 0,
        }
        body = {"metadata": {"namespace": self._namespace, "name": self._name}, "spec": spec}
        try:
            return await self._cluster.create(LEASES, {**_KIND, **body})
        except ObjectConflict:
            return await self._cluster.get(LEASES, self._namespace, self._name)

    async def _write(self, spec: dict[str, Any]) -> dict[str, Any]:
        version = self._seen["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        return await self._cluster.merge_patch(LEASES, self._namespace, self._name, body)


_KIND: Final = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}


def _now() -> str:
    return datetime.now(UTC).strftime(_MICROSECONDS)


def shown(holder: str) -> str:
    """Return a holder's name as it can be written into logs, pages and events."""
    short = holder if len(holder) <= _NAME_LENGTH else f"{holder[:_NAME_LENGTH]}..."
    return "".join(each if each.isprintable() else "?" for each in short)


def _spec(lease: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a Lease; one that was created without any has none."""
    return lease.get("spec") or {}
