"""What the last few seconds say of a queue's tasks, where they contradict its averages. Pure."""

import math
from typing import Final, NamedTuple

SPAN_SECONDS: Final = 3.0

_SPANS: Final = 3
"""Spans that have to agree before an average follows them at once."""

_ENOUGH: Final = 5
"""Tasks that have to end in each of them before they say how long tasks take."""

_DOUBT: Final = 2.0
"""Standard deviations by which a span may be off."""


class Span(NamedTuple):
    """A few seconds."""

    seconds: float = 0.0
    came: float = 0.0
    """Tasks that became due."""
    ended: float = 0.0
    """Tasks that ended."""
    busy: float = 0.0
    """Seconds that slots were busy."""


Spans = tuple[Span, ...]
"""The last ones that are over, and the present one."""


def with_look(spans: Spans, look: Span) -> Spans:
    """Return the spans after one more look."""
    if not spans or spans[-1].seconds >= SPAN_SECONDS:
        spans = (*spans, Span())[-_SPANS - 1 :]
    last = spans[-1]
    return (
        *spans[:-1],
        Span(
            last.seconds + look.seconds,
            last.came + look.came,
            last.ended + look.ended,
            last.busy + look.busy,
        ),
    )


def agreed_rate(rate: float, spans: Spans, unseen: float) -> float:
    """Return the rate brought to what all of the last spans say, if they contradict it.

    Args:
        rate: tasks in a second, on average.
        spans: the last ones.
        unseen: a rate at which it is chance if no task comes in all of them.
    """
    rates = [max(0.0, span.came / span.seconds) for span in _over(spans)]
    if len(rates) < _SPANS:
        return rate
    least, most = min(rates), max(rates)
    slack = _DOUBT / math.sqrt(SPAN_SECONDS)
    return max(least - slack * math.sqrt(least), min(rate, most + slack * math.sqrt(most) + unseen))


def most_task_seconds(spans: Spans) -> tuple[float, float]:
    """Return the time a task takes at most by all of the last spans, and how many tasks say so.

    Infinite where they do not tell: too few ended, or tasks only end, and none come, so that those which
    still run are the shorter the later it is.
    """
    over = _over(spans)
    ended = sum(span.ended for span in over)
    if (
        len(over) < _SPANS
        or any(span.ended < _ENOUGH for span in over)
        or sum(span.came for span in over) < ended / 2
    ):
        return math.inf, 0.0
    return max(span.busy / span.ended * (1 + _DOUBT / math.sqrt(span.ended)) for span in over), ended


def _over(spans: Spans) -> Spans:
    return tuple(span for span in spans if span.seconds >= SPAN_SECONDS)[-_SPANS:]
