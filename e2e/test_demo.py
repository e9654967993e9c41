import os
import subprocess
import sys
from pathlib import Path

import pytest

from testcluster.bare import BareCluster
from testcluster.errors import CannotRunHere
from testcluster.images.build import archives
from testcluster.images.image import ROOT
from tests.support.cannot_run import cannot_run

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Build the images first, which takes minutes where nothing is cached."""
    try:
        archives()
    except CannotRunHere as error:
        cannot_run("tests of the demo", str(error))


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
