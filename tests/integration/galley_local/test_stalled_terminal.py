"""`galley dev` in a terminal that was stopped with Ctrl-S."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
STOP, GO = b"\x13", b"\x11"
MANIFEST = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: words}
spec:
  handlers: {commands: [{name: say, command: [echo]}]}
"""


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[int]:
    """The far side of the terminal of a `galley dev` that serves."""
    (tmp_path / "queues.yaml").write_text(MANIFEST)
    screen, side = pty.openpty()
    with subprocess.Popen(
        [BIN / "galley", "dev", "queues.yaml"], cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=side, stderr=side, start_new_session=True,
    ) as dev:  # fmt: skip
        os.close(side)
        _read(screen, b"serving words at", 30)
        yield screen
        os.write(screen, GO)
        dev.terminate()
        _read(screen, None, 30)
    os.close(screen)


def _read(screen: int, until: bytes | None, seconds: float) -> None:
    printed, deadline = b"", time.monotonic() + seconds
    while until is None or until not in printed:
        ready, _, _ = select.select([screen], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, printed.decode(errors="replace")
        more = b""
        with suppress(OSError):  # the other side of a terminal was closed
            more = os.read(screen, 65536)
        if not more:
            return
        printed += more


@pytest.mark.timeout(120)
def test_a_terminal_that_stands_still_does_not_stop_the_queues(screen: int, tmp_path: Path) -> None:
    os.write(screen, STOP)
    for _ in range(2):
        done = subprocess.run(
            [BIN / "galley", "submit", "words", "say", "--wait", "40"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
