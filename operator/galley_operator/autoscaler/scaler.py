"""The loop that keeps one queue's workers at the number its work asks for: read, decide, write."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, TypeVar

from galley.backlog import Unknown
from galley.broker.doorbell import Doorbell
from galley.broker.signals import SignalReader
from galley.errors import GalleyError
from galley.failpoint import failpoint
from galley.resources.queue_status import ScalingLimit
from galley_operator.autoscaler.decide import DRAIN_SECONDS, SWEEP_SECONDS, Decision, decide
from galley_operator.autoscaler.ledger import Ledger
from galley_operator.autoscaler.shares import Cost, claim_of
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.errors import FleetRefused
from galley_operator.fleet.fleet import Fleet, WorkerPhase

log = logging.getLogger(__name__)

REST_SECONDS: Final = 60.0
"""Time between two looks at a queue at rest, for changes that nothing reported, and no stream shows."""

GLANCE_SECONDS: Final = 15.0
"""Time between two glances at the streams of a queue at rest. All queues take them at the same time, so that
they share one listing, and a queue whose streams are as they were costs nothing else."""

READ_SECONDS: Final = 5.0
"""How long backlog and workers may take to be read before they count as not known."""

WRITE_SECONDS: Final = 10.0
"""How long one request to the fleet may take before the sweep goes on without it."""

_SETTLE_SECONDS: Final = (0.0, 0.01, 0.05)
"""The bell may be heard before the task is counted; so it is looked for so often after a ring."""

Value = TypeVar("Value")


def at_rest(signals: Signals, decision: Decision) -> bool:
    """Return whether nothing waits or runs, and the workers are as many, and as they are to stay.

    What a budget keeps from its number is not at rest: nothing tells it that there is room.
    """
    backlog, workforce = signals.backlog, signals.workforce
    if signals.missing is not None or isinstance(backlog, Unknown) or isinstance(workforce, Unknown):
        return False
    return (
        not backlog.waiting
        and not backlog.in_flight
        and len(workforce.workers) == decision.desired == decision.memory.most_needed
        and decision.limit is not ScalingLimit.BUDGET
        and all(worker.phase is WorkerPhase.READY for worker in workforce.workers)
        and not workforce.replacing
        and not decision.memory.asked
        and not decision.memory.learned.active
        and (
            decision.next_at is None
            or decision.memory.learned.at is None
            or decision.next_at > decision.memory.learned.at
        )
    )


class Scaler:
    """Scales the workers of one queue until it is cancelled.

    Errors of a sweep are logged, and what they concern is not known in that sweep; the next one
    comes a second later.
    """

    def __init__(
        self,
        reader: SignalReader,
        bell: Doorbell,
        fleet: Fleet,
        policy: ScalingPolicy,
        *,
        queue: tuple[str, str],
        memory: Memory | None = None,
        ledger: Ledger | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Args: queue: its namespace and its name; bell: of that queue, open for as long as this runs.

        memory: of an earlier process; ledger: of the budget that queues share.
        """
        self._reader, self._bell, self._fleet, self._clock = reader, bell, fleet, clock
        self._namespace, self._queue = queue
        self._memory, self._ledger = memory, ledger
        if ledger is not None:
            ledger.join(queue, self.wake)
        self.cost = Cost(1)
        """What one worker requests; may be replaced at any time."""
        self._failing: dict[str, datetime] = {}
        self.policy = policy
        """May be replaced at any time; the next sweep decides by it."""
        self.signals: Signals | None = None
        """What the last decision was made on."""
        self.last: Decision | None = None
        """The last decision."""
        self.budget_problem = ""
        """Why the budget can never allow what the queue is to have; empty if it can."""
        self.resting_since: float | None = None
        """Since when nothing would change without a word from elsewhere, by the loop's clock; None if
        something would."""

    async def run(self) -> None:
        """Sweep when the last decision says, and at once when the doorbell rings; seldom at rest.

        What ends a rest: the doorbell, for tasks that are submitted, planned or come due; a connection to
        the broker that was made again; `wake`, called where the policy changes or workers are seen to; the
        time at which workers for tasks for later are to be started; and a glance that finds a stream changed.
        """
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            # Armed before the look, so that what comes during the look is heard.
            await self._arm()
            await self.sweep()
            if self.resting and not self._bell.armed:
                # The rest begins with this look: what comes before the bell is armed has to be seen, too.
                await self._arm()
                await self.sweep()
            rung = self.resting and self._bell.armed and await self._rest(began)
            look_in = self.last.look_in if self.last is not None else SWEEP_SECONDS
            # However many changes wake it, it looks no sooner; but the first task does not wait for that.
            if rung or await self._bell.ring(max(0.0, began + look_in - loop.time())):
                await self._answer_bell()
                # Rings once a sweep: a flood of tasks is no flood of sweeps.
                await asyncio.sleep(max(0.0, began + SWEEP_SECONDS - loop.time()))

    def wake(self) -> None:
        """Look within a second, if the queue is at rest: something about it has changed."""
        self._bell.interrupt()

    @property
    def resting(self) -> bool:
        """Whether the last look found nothing that would change without a word from elsewhere."""
        return self.resting_since is not None

    async def sweep(self, *, rung: bool = False) -> Decision:
        """Read, decide and write once; returns the decision and keeps it in `last`."""
        backlog = await self._attempt(
            "read the backlog",
            READ_SECONDS,
            lambda: self._reader.read(self._namespace, self._queue, rung=rung),
        )
        workforce = await self._attempt("observe the workers", READ_SECONDS, self._fleet.observe)
        signals = Signals(backlog, workforce)
        decision = self._decide(signals, self._clock())
        self._tell(decision)
        self.signals, self.last, self._memory = signals, decision, decision.memory
        if not at_rest(signals, decision):
            self.resting_since = None
        elif self.resting_since is None:
            self.resting_since = asyncio.get_running_loop().time()
        await self._write(decision)
        return decision

    def _decide(self, signals: Signals, now: datetime) -> Decision:
        alone = decide(signals, self.policy, self._memory, now)
        if self._ledger is None:
            return alone
        claim = claim_of((self._namespace, self._queue), self.cost, self.policy.at(now), signals, alone)
        if claim is None:
            return alone
        allowed = self._ledger.allowed(claim, now)
        self.budget_problem = self._ledger.problem(claim, allowed)
        decision = decide(signals, replace(self.policy, allowed=allowed), self._memory, now)
        if decision.scale_to is not None:
            self._ledger.took(claim.queue, decision.scale_to)
        return decision

    async def _rest(self, began: float) -> bool:
        """Wait until there is something to look at; returns whether it is the bell that rang.

        Args:
            began: when the rest did, by the loop's clock.
        """
        loop = asyncio.get_running_loop()
        while True:
            glance = (math.floor(loop.time() / GLANCE_SECONDS) + 1) * GLANCE_SECONDS
            rung = await self._bell.wait(max(0.0, min(glance - loop.time(), self._until_due())))
            if (
                rung
                or self._bell.interrupted
                or self._until_due() <= 0
                or loop.time() - began >= REST_SECONDS
                # No stream shows that an hour has come for which another number is set.
                or self.policy.minimums
                or await self._changed()
            ):
                return rung

    async def _changed(self) -> bool:
        """Return whether a stream of the queue is not as it was, as far as known."""
        look = self._reader.unchanged
        unchanged = await self._attempt(
            "list the streams", READ_SECONDS, lambda: look(self._namespace, self._queue)
        )
        return unchanged is not True

    async def _answer_bell(self) -> None:
        for pause in _SETTLE_SECONDS:
            await asyncio.sleep(pause)
            await self.sweep(rung=True)
            if self.signals is not None and self._has_work(self.signals):
                return

    def _until_due(self) -> float:
        """Return the seconds until workers for tasks for later are to be started."""
        at = self.last.next_at if self.last is not None else None
        return math.inf if at is None else (at - self._clock()).total_seconds()

    async def _arm(self) -> None:
        """Listen for new work where it would change the number of workers, or end a rest."""
        if self.signals is None or self.resting or self._could_grow(self.signals):
            await self._attempt("arm the doorbell", WRITE_SECONDS, self._bell.arm)
        else:
            self._bell.disarm()

    def _could_grow(self, signals: Signals) -> bool:
        if isinstance(signals.backlog, Unknown) or isinstance(signals.workforce, Unknown):
            return True
        workers = signals.workforce.present
        slots = self.policy.slots * len(workers)
        tasks = signals.backlog.waiting + signals.backlog.in_flight
        return len(workers) < self.policy.max_workers and tasks >= slots

    @staticmethod
    def _has_work(signals: Signals) -> bool:
        backlog = signals.backlog
        return not isinstance(backlog, Unknown) and backlog.waiting + backlog.in_flight > 0

    async def _write(self, decision: Decision) -> None:
        fleet = self._fleet
        if decision.undrain:
            failpoint("scale.before_undrain")
            await self._attempt("end drains", WRITE_SECONDS, lambda: fleet.drain(decision.undrain, 0))
        if (number := decision.scale_to) is not None:
            failpoint("scale.before_scale")
            await self._attempt("scale", WRITE_SECONDS, lambda: fleet.scale(number))
        if decision.drain:
            failpoint("scale.before_drain")
            await self._attempt("drain", WRITE_SECONDS, lambda: fleet.drain(decision.drain, DRAIN_SECONDS))

    async def _attempt(
        self, action: str, seconds: float, call: Callable[[], Awaitable[Value]]
    ) -> Value | Unknown:
        """Return what the call returns, or since when and why it is not known."""
        try:
            async with asyncio.timeout(seconds):
                value = await call()
        except TimeoutError:
            problem = f"no answer in {seconds:g} s"
            log.warning("sweep incomplete", extra=self._labels | {"action": action, "error": problem})
        except FleetRefused as refusal:
            # A drained worker went back to work between the look and now: the next sweep sees it.
            problem = str(refusal)
            log.info("scale-in refused", extra=self._labels | {"error": problem})
        except GalleyError as error:
            problem = str(error)
            log.warning("sweep incomplete", extra=self._labels | {"action": action, "error": problem})
        except Exception as error:
            # Whatever it is, other queues and the next sweep must not suffer from it.
            problem = f"{type(error).__name__}: {error}"
            log.exception("sweep incomplete", extra=self._labels | {"action": action})
        else:
            self._failing.pop(action, None)
            return value
        return Unknown(problem, self._failing.setdefault(action, self._clock()))

    def _tell(self, decision: Decision) -> None:
        """Log what is done. What is wanted alone can change with each task, while workers stay."""
        asked = self._memory.asked if self._memory is not None else {}
        drains = not asked.keys() >= set(decision.drain)
        if self.last is None or decision.scale_to is not None or decision.undrain or drains:
            log.info(
                "workers decided",
                extra=self._labels
                | {"desired": decision.desired, "remove": decision.remove, "reason": decision.reason},
            )

    @property
    def _labels(self) -> dict[str, object]:
        return {"namespace": self._namespace, "queue": self._queue}
