"""Which namespaces the leader serves: those that no other installation has claimed, each with its own parts.

    claim wanted ──> claim held, parts at work ──(another has the claim)──> parts ended ──> claim wanted

What happens to the claim of one namespace concerns no other. With `all` namespaces there is one scope, and no
claim: which namespaces there will be is not known.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Final

from galley.backlog import QueueBacklog
from galley_operator.autoscaler.shares import Cost
from galley_operator.claims import Claim
from galley_operator.data_path import TaskView
from galley_operator.fleet.workloads import Queue
from galley_operator.scope import Scope, Surroundings
from galley_operator.tasks.known_queues import QueueObject

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0
"""Bounds of the pause after a claim was lost: parts that begin and end all the time cost other namespaces."""


class Views:
    """The Tasks of each scope, kept up to date in every replica, so that a new leader knows them at once."""

    def __init__(self, scopes: Collection[str | None], make: Callable[[str | None], TaskView]) -> None:
        """Args: make: returns a new view of a scope."""
        self._make = make
        self._views = {scope: make(scope) for scope in scopes}
        self._running: dict[str | None, asyncio.Task[None]] = {}
        self._renewed: asyncio.Queue[str | None] = asyncio.Queue()
        self._synced = False

    async def run(self) -> None:
        """Keep them up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for scope in self._views:
                self._renewed.put_nowait(scope)
            while True:
                scope = await self._renewed.get()
                if (old := self._running.get(scope)) is not None:
                    old.cancel()
                name = f"tasks seen {scope or 'everywhere'}"
                self._running[scope] = group.create_task(self._views[scope].run(), name=name)

    def of(self, scope: str | None) -> TaskView:
        """Return the view of a scope."""
        return self._views[scope]

    def renew(self, scope: str | None) -> None:
        """List the Tasks of a scope again: what is kept of them is from a time when it was served."""
        self._views[scope] = self._make(scope)
        self._renewed.put_nowait(scope)

    @property
    def synced(self) -> bool:
        """Whether all Tasks of one of the scopes have been seen: rights may be missing in others."""
        self._synced = self._synced or any(each.synced.is_set() for each in self._views.values())
        return self._synced

    @property
    def heard_at(self) -> float:
        """When the API server was last heard of, by a monotonic clock."""
        return max(each.heard_at for each in self._views.values())

    def __len__(self) -> int:
        """Return how many Tasks have not ended."""
        return sum(len(each.tasks) for each in self._views.values())


class Serving:
    """Serves the namespaces it may for as long as `run` runs; only the leader runs it."""

    def __init__(
        self, around: Surroundings, views: Views, claims: Collection[Claim], *, everywhere: bool
    ) -> None:
        """Args: claims: of each namespace to serve; everywhere: serve all, without any claim."""
        self.scopes: dict[str | None, Scope] = {}
        """What is served now."""
        self.claims = tuple(claims)
        self._around, self._views, self._everywhere = around, views, everywhere
        self._admitted = self._written = 0
        """Of scopes that have ended."""

    async def run(self) -> None:
        """Serve until cancelled."""
        keep_running = self._around.faults.keep_running
        async with asyncio.TaskGroup() as group:
            if self._everywhere:
                group.create_task(keep_running("serving", lambda: self._work(None)), name="serve all")
            for claim in self.claims:
                serve = keep_running("serving", lambda claim=claim: self._serve(claim))  # type: ignore[misc]
                group.create_task(serve, name=f"serve {claim.namespace}")

    async def _serve(self, claim: Claim) -> None:
        loop, pause, namespace = asyncio.get_running_loop(), FIRST_PAUSE, claim.namespace
        served = self._around.metrics.served.labels(namespace)
        while True:
            served.set(0)
            await claim.acquire()
            served.set(1)
            began = loop.time()
            log.info("namespace is served", extra={"namespace": namespace})
            async with asyncio.TaskGroup() as group:
                working = group.create_task(self._work(namespace), name=f"work for {namespace}")
                await claim.hold()
                served.set(0)
                log.error("namespace is not served any more", extra={
                    "namespace": namespace, "error": claim.problem})  # fmt: skip
                working.cancel()
            pause = FIRST_PAUSE if loop.time() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _work(self, namespace: str | None) -> None:
        """Have the parts of a scope work until cancelled."""
        scope = self.scopes[namespace] = Scope(namespace, self._around, self._views.of(namespace))
        try:
            await scope.run()
        finally:
            del self.scopes[namespace]
            self._admitted += scope.path.look.admitted
            self._written += scope.path.writer.written
            for queue in scope.queues.left.queues | set(scope.queues.served):
                self._around.queues.leave(queue, Cost())
                self._around.metrics.forget(*queue)
            self._views.renew(namespace)

    # What others ask.

    def scope_of(self, namespace: str) -> Scope | None:
        """Return what serves a namespace; None if nothing does."""
        return self.scopes.get(None if self._everywhere else namespace)

    def serves(self, namespace: str) -> bool:
        """Whether a namespace is served."""
        return self.scope_of(namespace) is not None

    def queues_in(self, namespace: str) -> Collection[Queue] | None:
        """Return the queues there are in a namespace; None if that is not known, or not ours to know."""
        scope = self.scope_of(namespace)
        if scope is None or scope.queues.listed is None:
            return None
        return {queue for queue in scope.queues.listed if queue[0] == namespace}

    def touched(self, queue: Queue) -> None:
        """Take in that an object of a queue was changed or deleted."""
        if (scope := self.scope_of(queue[0])) is not None:
            scope.turns.add(queue)

    def found(self, queue: Queue) -> QueueObject | None:
        """Return a TaskQueue of a namespace that is served, as it was last seen."""
        scope = self.scope_of(queue[0])
        return scope.known.found(queue) if scope is not None else None

    def backlogs(self) -> Iterator[tuple[Queue, QueueBacklog]]:
        """Yield what was last known of each queue's tasks."""
        for scope in self.scopes.values():
            yield from scope.queues.backlogs()

    @property
    def problems(self) -> list[str]:
        """Why each namespace that is not served is not, as sentences."""
        unclaimed = [
            claim.problem for claim in self.claims if claim.problem and not self.serves(claim.namespace)
        ]
        unlisted = [
            f"namespace {namespace}: {scope.queues.problem}" if namespace else scope.queues.problem
            for namespace, scope in self.scopes.items()
            if scope.queues.problem
        ]
        return [*unclaimed, *unlisted]

    @property
    def problem(self) -> str:
        """Why nothing can be served; empty if something is."""
        scopes = self.scopes.values()
        if any(each.queues.listed is not None and not each.queues.problem for each in scopes):
            return ""
        return "; ".join(self.problems) or "queues have not been looked at yet"

    @property
    def admitted(self) -> int:
        """Tasks given to NATS so far."""
        return self._admitted + sum(each.path.look.admitted for each in self.scopes.values())

    @property
    def written(self) -> int:
        """Statuses of Tasks written so far."""
        return self._written + sum(each.path.writer.written for each in self.scopes.values())
