"""The fast path: the attempt of a plain task, from its delivery to its acknowledgement.

Most tasks are delivered once, have no key and no files, and return. A coroutine and its waits would be a
third of what such a task costs, so it takes three calls: `FastPath.begin`, `FastAttempt.ended` and `stored`.
If anything else turns up, `Attempts.resume` continues, with the same writes in the same order.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from galley.address import Kind
from galley.broker.pipeline import Ack
from galley.broker.pull import Delivery
from galley.envelope import FIRST, Envelope
from galley.envelope import decode as decode_envelope
from galley.errors import EnvelopeInvalid
from galley.failpoint import failpoint
from galley.record import Record
from galley.schedule import ticks_of
from galley.workflow.state import is_step
from galley_worker import journal
from galley_worker.claim import Held, must_claim
from galley_worker.ending import Finish, Returned
from galley_worker.runners.execution import Execution
from galley_worker.settle import Tried
from galley_worker.under_way import UnderWay
from galley_worker.verdict import Succeed

if TYPE_CHECKING:
    from galley_worker.attempts import Attempts, Parts
    from galley_worker.judge import Rules

_FIRST_HEADER: Final = FIRST.encode()


class Hand(Protocol):
    """What began an attempt, and holds its slot."""

    def leave(self) -> None:
        """Take note that the attempt is over."""

    def resume(self, rest: Coroutine[Any, Any, None]) -> None:
        """Run the rest of the attempt as a coroutine, and leave when it has ended."""


class FastAttempt(UnderWay, eq=False, kw_only=True):
    """An attempt on the fast path."""

    path: "FastPath"
    hand: Hand
    final: Record | None = None
    verdict: Succeed | None = None

    def ended(self, ran: Finish) -> None:
        """Write the final record if its handler returned."""
        path = self.path
        try:
            if type(ran) is not Returned or not path.write(self, ran):
                path.resume(self, ran)
        except Exception as error:
            path.recover(self, error)

    def stored(self, ack: Ack) -> None:
        """Acknowledge the task if its record is stored."""
        path = self.path
        try:
            if not ack.stored:
                path.resume_from(self, ack)
                return
            path.settle(self)
        except Exception as error:
            path.recover(self, error)
            return
        path.leave(self)


class FastPath:
    """Begins attempts, and ends those that succeed."""

    def __init__(self, attempts: "Attempts", rules: "Rules", parts: "Parts", later: str) -> None:
        self._attempts, self._rules, self._parts, self._later = attempts, rules, parts, later

    def begin(self, delivery: Delivery, hand: Hand) -> bool:
        """Begin the attempt of a delivery; returns False, with nothing done, if it needs `Attempts.run`."""
        attempts, parts = self._attempts, self._parts
        envelope = self._read(delivery)
        lease = attempts.roster.lease(delivery) if envelope is not None else None
        if envelope is None or lease is None:
            return False
        present = FastAttempt(delivery, lease, parts.clock(), path=self, hand=hand)
        held = Held(delivery, envelope, FIRST, 0, False, envelope.history, parts.now())
        present.held = held
        parts.solitude.enter_at_once()
        attempts.roster.enter(present)
        try:
            begun = attempts.start(present, held, attempts.judge.timeout(held))
            if isinstance(begun, Execution):
                begun.heard_by(present.ended)
            else:
                self.resume(present, begun)
        except Exception as error:
            self.recover(present, error)
        return True

    def _read(self, delivery: Delivery) -> Envelope | None:
        """Return the task of a delivery; None if it is not a plain one."""
        attempts, parts, address = self._attempts, self._parts, delivery.address
        if (
            delivery.header != _FIRST_HEADER
            or must_claim(delivery, FIRST, self._later)
            or delivery.problem
            or address.kind is Kind.TURN
            or (not address.id.isalnum() and (ticks_of(address.id) is not None or is_step(address.id)))
            or attempts.gates.limit is not None
            or parts.solitude.closed
            or parts.traces is not None
            or parts.settler.life is not None
            or not self._rules.plaintext
            or parts.payloads.keys_of(address) is not None
            or attempts.roster.is_cancelled(delivery)
        ):
            return None
        try:
            envelope = decode_envelope(delivery.body)
        except EnvelopeInvalid:
            return None
        asks = envelope.key or envelope.unique or envelope.large or envelope.files or envelope.sealed
        return None if asks or envelope.handler not in parts.runners.handlers else envelope

    def write(self, present: FastAttempt, ran: Returned) -> bool:
        """Write the final record of an attempt; returns False if anything has to be waited for."""
        held = present.held
        assert held is not None
        if not self._parts.notebook.empty or ran.large is not None:
            return False
        failpoint("run.after_end")
        journal.ended(held, ran)
        present.verdict = verdict = Succeed(ran.result)
        self._attempts.paced(held, verdict)
        # Known before it is written: the answer may be there before the next line.
        present.final = self._parts.settler.success(held, ran.result)
        return self._parts.settler.store_at_once(held, present.final, present.stored)

    def settle(self, present: FastAttempt) -> None:
        """Acknowledge a task whose final record is stored."""
        held, verdict = present.held, present.verdict
        assert held is not None
        assert verdict is not None
        self._parts.settler.succeeded(held)
        self._attempts.settled(present, held, verdict, by_us=True)

    def leave(self, present: FastAttempt) -> None:
        """Forget an attempt that is over."""
        self._parts.solitude.leave()
        try:
            self._attempts.leave(present)
        finally:
            present.hand.leave()

    def resume(self, present: FastAttempt, ran: Finish) -> None:
        """Have `Attempts` settle an attempt whose handler ended."""
        present.hand.resume(self._attempts.resume(present, ran, None))

    def resume_from(self, present: FastAttempt, ack: Ack) -> None:
        """Have `Attempts` settle an attempt whose final record was not stored."""
        assert present.final is not None
        ran = Returned(present.final.result)
        present.hand.resume(self._attempts.resume(present, ran, Tried(present.final, ack)))

    def recover(self, present: FastAttempt, error: Exception) -> None:
        """Settle an attempt that failed outside its handler."""
        present.hand.resume(self._attempts.recover(present, error))
