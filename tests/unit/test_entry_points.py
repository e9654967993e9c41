"""What each process imports before it works: no more than it needs, since every start pays for it."""

import subprocess
import sys
import textwrap

import pytest

HEAVY = (
    "aiohttp", "argparse", "cryptography", "ctypes", "email", "http", "importlib.metadata", "kopf", "nacl",
    "nats", "prometheus_client", "pydantic", "rich", "urllib.request", "yaml",
)  # fmt: skip
"""What takes long to import; a part of a package counts as the package."""

HANDLERS = """
    import galley

    @galley.task(queue="images", timeout=30, retry=galley.RetryPolicy(attempts=2))
    def resize(width: int) -> int:
        return width
"""

ENTRY_POINTS = {
    "a module of handlers": (HANDLERS, set[str]()),
    "a handler's process": ("import galley_worker.head_start", {"ctypes"}),
}
"""What is carried out, and what of the heavy it may import."""


def imported(code: str) -> set[str]:
    show = f"import sys; print(*(each for each in {HEAVY!r} if each in sys.modules))"
    run = [sys.executable, "-c", f"{textwrap.dedent(code)}\n{show}"]
    return set(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(("code", "allowed"), ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_process_imports_only_what_it_needs(code: str, allowed: set[str]) -> None:
    assert imported(code) <= allowed
