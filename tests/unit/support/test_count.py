import os
import subprocess
import sys
from pathlib import Path

import pytest

PASSES = "def test_a(): pass\n"
FAILS = "def test_b(): assert False\n"
SKIPS = "import pytest\n@pytest.mark.skip\ndef test_c(): pass\n"
ERRS = "import pytest\n@pytest.fixture\ndef broken(): raise OSError\ndef test_d(broken): pass\n"
DIES = "import os\ndef test_e(): os._exit(1)\n"
DOES_NOT_IMPORT = "import nothing_of_the_kind\n"


@pytest.mark.parametrize(
    ("source", "words", "line"),
    [
        (PASSES + FAILS + SKIPS + ERRS, [], "1 passed, 2 failed"),
        (PASSES, [], "1 passed, 0 failed"),
        (PASSES + DIES, ["-p", "xdist.plugin", "-n1"], "1 passed, 1 failed"),
        (DOES_NOT_IMPORT, [], "0 passed, 1 failed"),
        ("", [], "0 passed, 1 failed"),
    ],
    ids=["all kinds", "passes", "dies", "does not import", "no test"],
)
def test_the_last_line_counts_what_passed_and_what_failed(
    tmp_path: Path, source: str, words: list[str], line: str
) -> None:
    (tmp_path / "test_some.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.count", *words, str(tmp_path)]
    # Without the plugins of all libraries, most of which take their time to import.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout.splitlines()[-1] == line, ended.stdout + ended.stderr
    assert (ended.returncode == 0) == line.endswith(" 0 failed")
