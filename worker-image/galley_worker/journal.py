"""Journal: the log events of attempts, with the same keys at each step."""

import logging
from datetime import datetime

from galley.broker.pull import Delivery
from galley.logs import log_often
from galley.tracing import id_in
from galley_worker.claim import Held
from galley_worker.ending import Ending
from galley_worker.verdict import Bury, RetryAt, Verdict

log = logging.getLogger("galley_worker.attempts")


def dropped(delivery: Delivery, why: str) -> None:
    """A delivery was left to another worker, or removed as outdated, before its attempt began."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "lane": address.lane, "why": why}
    log.info("delivery dropped", extra=extra)


def not_decrypted(delivery: Delivery, why: str) -> None:
    """A task cannot be decrypted now and comes again later; of many such, as the key service may be down."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "lane": address.lane, "why": why}
    log_often(log, logging.WARNING, "task not decrypted yet", extra)


def not_fetched(delivery: Delivery, why: str) -> None:
    """The objects of a task cannot be had now, and it comes again later; of many, as a store may be down."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "lane": address.lane, "why": why}
    log_often(log, logging.WARNING, "objects not fetched yet", extra)


def lost(held: Held, why: str) -> None:
    """An attempt was dropped, since another worker may run the task by now."""
    log.warning("attempt dropped", extra={**_about(held), "why": why})


def shortened(delivery: Delivery, why: str) -> None:
    """A dead letter is larger than the broker accepts, and is kept without its task."""
    log.warning("dead letter shortened", extra={"task": delivery.address.id, "why": why})


def no_room(delivery: Delivery, why: str) -> None:
    """What follows for a task cannot be stored: its message stays in its stream and is looked at again."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "why": why}
    log_often(log, logging.WARNING, "no room in the queue, the task is kept and tried again", extra)


def failed(delivery: Delivery, error: Exception) -> None:
    """An attempt failed outside its handler; the worker continues."""
    address = delivery.address
    extra = {"task": address.id, "queue": address.queue, "lane": address.lane}
    log.error("attempt failed outside its handler", exc_info=error, extra=extra)


def left_alone(held: Held, why: str) -> None:
    """A state was found that the protocol rules out."""
    log.error("message left alone", extra={**_about(held), "why": why})


def gave_way(held: Held) -> None:
    """A task that has to run alone would have kept others from running for too long."""
    log.info("attempt waits for a worker that runs no other", extra=_about(held))


def started(held: Held, at: datetime) -> None:
    """A handler begins. At level DEBUG: normally the end of the attempt, which is logged, is enough.

    Args:
        held: what it runs for.
        at: when its lease was checked for the last time. The process may have been frozen since: then the
            handler does not begin, and must not seem to have begun afterwards.
    """
    if log.isEnabledFor(logging.DEBUG):
        delivery = held.delivery
        log.debug("attempt started", extra={
            "time": at, **_about(held), "stream": delivery.source.stream, "sequence": delivery.sequence,
            "delivered": delivery.delivered, "flagged": held.flags.republished,
        })  # fmt: skip


def ended(held: Held, ending: Ending) -> None:
    """A handler has ended, and its attempt is not settled yet."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug("attempt ended", extra={**_about(held), "ending": type(ending).__name__})


def settled(held: Held, verdict: Verdict, seconds: float, *, by_us: bool) -> None:
    """An attempt is settled, or had been settled by another worker before."""
    kind = type(verdict)
    level = logging.WARNING if kind is Bury else logging.INFO
    if not log.isEnabledFor(level):
        return
    extra = _about(held)
    extra["verdict"] = kind.__name__
    extra["milliseconds"] = round(seconds * 1000, 1)
    if isinstance(verdict, Bury | RetryAt):
        extra |= {"reason": verdict.failure.reason, "error": verdict.failure.message}
    log_often(log, level, "attempt settled" if by_us else "attempt overtaken", extra)


def _about(held: Held) -> dict[str, object]:
    address = held.delivery.address
    about: dict[str, object] = {
        "task": address.id,
        "queue": address.queue,
        "lane": address.lane,
        "attempt": held.flags.attempt,
        "handler": held.envelope.handler,
    }
    if held.envelope.trace:
        about["trace"] = id_in(held.envelope.trace)
    return about
