"""Who was killed for want of memory is told by the kernel's count of them, wherever that is kept."""

import signal
from pathlib import Path

import pytest

from galley_worker.runners.exits import KernelKills, in_words

UNIFIED = ("0::/\n", "memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill {}\noom_group_kill 0\n")
LEGACY = (
    "9:memory:/kubepods/pod1/c1\n1:name=systemd:/\n0::/\n",
    "memory/memory.oom_control",
    "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
)


@pytest.mark.parametrize("kernel", [UNIFIED, LEGACY], ids=["version 2", "version 1"])
@pytest.mark.parametrize("own", ["", "kubepods/pod1/c1"], ids=["seen as the topmost", "below others"])
def test_each_kill_is_told_once(kernel: tuple[str, str, str], own: str, tmp_path: Path) -> None:
    membership, name, content = kernel
    folder, _, file = name.rpartition("/")
    group = tmp_path / folder / own
    group.mkdir(parents=True, exist_ok=True)
    (tmp_path / "membership").write_text(membership.replace("0::/\n", f"0::/{own}\n"))
    (group / file).write_text(content.format(3))
    kills = KernelKills(tmp_path, tmp_path / "membership")
    assert not kills.one_more()
    (group / file).write_text(content.format(5))
    assert [kills.one_more() for _ in range(3)] == [True, True, False]


def test_a_count_that_cannot_be_read_any_more_blames_nothing(tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("0::/\n")
    (tmp_path / "memory.events").write_text("oom_kill 3\n")
    kills = KernelKills(tmp_path, tmp_path / "membership")
    (tmp_path / "memory.events").unlink()
    assert not kills.one_more()


def test_without_a_cgroup_there_are_none(tmp_path: Path) -> None:
    assert not KernelKills(tmp_path, tmp_path / "nothing").one_more()
    (tmp_path / "membership").write_text("0::/\n")
    assert not KernelKills(tmp_path, tmp_path / "membership").one_more()


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-signal.SIGKILL, "signal 9 (SIGKILL)"), (-200, "signal 200")],
)
def test_an_end_in_words(code: int, words: str) -> None:
    assert in_words(code, ours=True) == words
