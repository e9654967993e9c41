"""Each check that `make check` and CI run beside the tests; the pages are resolved, but not written."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "target", ["check/lint", "check/format", "check/types", "check/layers", "verify", "docs/check"]
)
def test_a_check_finds_nothing(target: str) -> None:
    command = ["make", "--silent", "--no-print-directory", target]
    ended = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ended.returncode:
        pytest.fail(f"make {target}:\n{ended.stdout}", pytrace=False)
