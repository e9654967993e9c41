import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually

ROOT = Path(__file__).parent.parent.parent.parent
RUN = """
import subprocess, sys
from tests.support.ended import watch
watch()
left = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
print(left.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
async def test_what_a_killed_run_has_started_ends(how: signal.Signals) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it does not block
        [sys.executable, "-c", RUN], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        left = psutil.Process(int(run.stdout.readline()))
        beside = psutil.Process(os.getpid())
        run.send_signal(how)
        run.wait(30)

        await eventually(lambda: not left.is_running() or left.status() == "zombie", within=30)
        assert beside.is_running()
