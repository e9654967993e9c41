import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.warm_start import WarmStart

PROBE = """
import json, os, sys
print(json.dumps({
    "pid": os.getpid(), "session": os.getsid(0), "arguments": sys.argv[1:], "environment": dict(os.environ),
    "folder": os.getcwd(), "path": sys.path[0], "input": sys.stdin.read(),
    "main": [__name__, __spec__.name, sys.modules[__name__].__file__],
}), flush=True)
if sys.argv[1:] == ["waits"]:
    import threading
    threading.Event().wait(1000)
if sys.argv[1:] == ["raises"]:
    raise OSError("no room")
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(folder: Path, *arguments: str) -> WarmStart:
    with (folder / "log").open("ab") as log:
        return WarmStart(["probe", *arguments], {**os.environ, "COLOUR": "red"}, log)


def test_a_program_is_set_up_as_python_sets_it_up(folder: Path) -> None:
    program = started(folder, "one", "two words")
    assert program.wait(60) == program.returncode == program.poll() == 7
    program.send_signal(signal.SIGTERM)  # it has ended: nothing happens
    found = json.loads((folder / "log").read_text())
    assert found["pid"] == found["session"] == program.pid
    assert found["arguments"] == ["one", "two words"]
    assert found["environment"] == {**os.environ, "COLOUR": "red"}
    assert found["folder"] == found["path"] == str(folder)
    assert found["main"] == ["__main__", "probe", str(folder / "probe.py")]
    assert not found["input"]


def test_what_a_program_raises_ends_it_with_a_traceback(folder: Path) -> None:
    assert started(folder, "raises").wait(60) == 1
    assert "OSError: no room" in (folder / "log").read_text()


async def test_a_program_that_is_killed_ends_with_the_signal(folder: Path) -> None:
    program = started(folder, "waits")
    await eventually((folder / "log").read_text, within=60)
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.01)
    program.kill()
    assert program.wait(60) == -signal.SIGKILL
