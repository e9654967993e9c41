import os
import subprocess
import sys
from pathlib import Path

import pytest

from testcluster.bare import BareCluster
from testcluster.images.image import ROOT

pytestmark = pytest.mark.timeout(400)


def test_the_commands_the_demo_prints_work_in_a_new_shell(bare_state: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from e2e.demo import main; sys.exit(main(Path(sys.argv[1])))"
    )
    demo = subprocess.run(
        [sys.executable, "-c", program, str(bare_state)],
        cwd=ROOT,
        env={**os.environ, "KEEP": "1", "GALLEY_E2E_CLUSTER": "bare"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    _, _, advice = demo.stdout.partition("To use it from this shell:\n")
    commands = [line for line in advice.splitlines() if line.startswith("  ")]
    assert len(commands) == 6
    shell = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert "task.galley.dev/goethe created" in shell.stdout
    assert not BareCluster(bare_state).running
