"""Named places where a test can make a process fail. In production nothing is ever hooked in here."""

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Mark a place, such as `settle.before_ack`, at which a test may crash, freeze or delay this process."""
    if _hook is not None:
        _hook(name)


def hook(react: Callable[[str], None] | None) -> None:
    """Call `react` with the name of each place that is passed; None ends that. For tests alone."""
    global _hook  # noqa: PLW0603 - one for the process, so that a place costs no look-up
    _hook = react
