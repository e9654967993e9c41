"""Times as people and as programs read them."""

from datetime import UTC, datetime


def in_words(moment: datetime, now: datetime) -> str:
    """Return a time by its distance, such as "2m ago" or "in 30s"."""
    seconds = (now - moment).total_seconds()
    return f"in {duration(-seconds)}" if seconds <= -1 else f"{duration(max(0.0, seconds))} ago"


def duration(seconds: float) -> str:
    """Return a length of time in its largest fitting unit, as kubectl does."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def rfc_3339(moment: datetime) -> str:
    """Return a time for programs: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
