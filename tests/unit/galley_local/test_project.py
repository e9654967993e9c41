import subprocess
import sys
from pathlib import Path

import pytest

from galley import dev_file
from galley_local.errors import DevRunsAlready, DiskFull, FolderUnusable
from galley_local.project import Project


def test_the_folder_keeps_itself_out_of_version_control(tmp_path: Path) -> None:
    with Project(tmp_path):
        assert (tmp_path / ".galley" / ".gitignore").read_text() == "*\n"


def test_the_address_is_there_exactly_while_it_runs(tmp_path: Path) -> None:
    with Project(tmp_path) as project:
        project.announce("nats://127.0.0.1:1", "ships")
        found = dev_file.nearest(tmp_path)
        assert found is not None
        assert (found[1].server, found[1].namespace, found[1].alive) == ("nats://127.0.0.1:1", "ships", True)
    assert dev_file.nearest(tmp_path) is None


def test_a_second_one_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from galley_local.project import Project\n"
        "with Project(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DevRunsAlready, match=f"process {other.pid}"), Project(tmp_path):
            pass
        other.kill()
    with Project(tmp_path):  # a lock dies with its holder
        pass


def test_without_room_it_does_not_begin(tmp_path: Path) -> None:
    more_than_any_disk = 2**60
    with pytest.raises(DiskFull, match="needs 1099511627776 MiB"), Project(tmp_path, room=more_than_any_disk):
        pass
    with Project(tmp_path):  # and holds nothing
        pass


def test_forgetting_takes_tasks_and_logs_and_leaves_the_lock(tmp_path: Path) -> None:
    with Project(tmp_path) as project:
        project.nats.mkdir()
        (project.logs / "w.log").write_text("old")
        project.forget()
        assert not project.nats.exists()
        assert list(project.logs.iterdir()) == []
        with pytest.raises(DevRunsAlready), Project(tmp_path):
            pass


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_stands_where_the_data_belongs_is_to_be_moved_away(tmp_path: Path, kind: str) -> None:
    own = tmp_path / ".galley"
    if kind == "file":
        own.touch()
    else:
        own.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FolderUnusable) as raised, Project(tmp_path):
        pass
    assert raised.value.hint == f"move {own} away: it is not a folder"
