"""What a worker's log says of attempts, with the same keys at each hop."""

import logging

from galley.broker.pull import Delivery
from galley.logs import log_often
from galley_worker.ending import Ending
from galley_worker.held import Held
from galley_worker.verdict import Bury, RetryAt, Verdict

log = logging.getLogger("galley_worker.attempts")


def dropped(delivery: Delivery, why: str) -> None:
    """A delivery was left for another worker, or taken off as outdated, before it began."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "lane": address.lane, "why": why}
    log.info("delivery dropped", extra=extra)


def lost(held: Held, why: str) -> None:
    """An attempt came to nothing, since somebody else may have the task by now."""
    log.warning("attempt dropped", extra={**_about(held), "why": why})


def shortened(delivery: Delivery, why: str) -> None:
    """A dead letter is larger than the broker stores, and is kept without its task."""
    log.warning("dead letter shortened", extra={"task": delivery.address.id, "why": why})


def failed(delivery: Delivery, error: Exception) -> None:
    """Galley itself failed in an attempt; the worker goes on."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "lane": address.lane}
    log.error("attempt failed outside its handler", exc_info=error, extra=extra)


def left_alone(held: Held, why: str) -> None:
    """Something was seen that the protocol rules out."""
    log.error("message left alone", extra={**_about(held), "why": why})


def started(held: Held) -> None:
    """A handler begins; at level DEBUG, since with its end in the log this is only for finding faults."""
    if log.isEnabledFor(logging.DEBUG):
        delivery = held.delivery
        log.debug("attempt started", extra={
            **_about(held), "stream": delivery.source.stream, "sequence": delivery.sequence,
            "delivered": delivery.delivered, "flagged": held.flags.republished,
        })  # fmt: skip


def ended(held: Held, ending: Ending) -> None:
    """A handler has ended, which nobody else knows yet."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("attempt ended", extra={**_about(held), "ending": type(ending).__name__})


def settled(held: Held, verdict: Verdict, seconds: float, *, by_us: bool) -> None:
    """A verdict became true, or somebody else had decided about the task before."""
    level = logging.WARNING if isinstance(verdict, Bury) else logging.INFO
    if not log.isEnabledFor(level):
        return
    extra = {
        **_about(held),
        "verdict": type(verdict).__name__,
        "milliseconds": round(seconds * 1000, 1),
    }
    if isinstance(verdict, Bury | RetryAt):
        extra |= {"reason": verdict.failure.reason, "error": verdict.failure.message}
    log_often(log, level, "attempt settled" if by_us else "attempt overtaken", extra)


def _about(held: Held) -> dict[str, object]:
    address = held.delivery.address
    return {
        "task": address.id,
        "queue": address.queue,
        "lane": address.lane,
        "attempt": held.flags.attempt,
        "handler": held.envelope.handler,
    }
