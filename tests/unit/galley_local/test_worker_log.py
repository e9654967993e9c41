import json
import shutil
from pathlib import Path

from galley_local.worker_log import FILE_BYTES, WorkerLog


def line(level: str, **keys: str) -> bytes:
    return json.dumps({"level": level, "event": "something", **keys}).encode() + b"\n"


def test_the_last_error_is_found_among_other_lines(tmp_path: Path) -> None:
    with WorkerLog(tmp_path / "w.log") as log:
        log.write(
            line("error", error="first", hint="a") + line("error", error="module x does not import", hint="b")
        )
        log.write(line("info") + b"plain words\n")
        assert log.last_error() == ("module x does not import", "b")
        assert log.last_line() == "plain words"


def test_a_line_that_comes_in_pieces_is_one_line(tmp_path: Path) -> None:
    whole = line("error", error="in pieces")
    with WorkerLog(tmp_path / "w.log") as log:
        for byte in whole:
            log.write(bytes([byte]))
        assert log.last_error() == ("in pieces", "")
    assert (tmp_path / "w.log").read_bytes() == whole


def test_a_worker_that_never_ends_its_line_costs_no_memory(tmp_path: Path) -> None:
    with WorkerLog(tmp_path / "w.log") as log:
        for _ in range(100):
            log.write(b"x" * 65_536)
        assert len(log.last_line()) <= 300
        assert log.last_error() is None


def test_a_log_whose_folder_was_removed_is_made_again_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "w.log"
    with WorkerLog(path) as log:
        log.write(b"before\n")
        shutil.rmtree(path.parent)
        log.write(b"y" * FILE_BYTES + b"\n")
        log.write(b"after\n")
        assert log.last_line() == "after"
    assert path.read_bytes() == b"after\n"


def test_a_full_disk_costs_the_file_and_not_the_last_lines() -> None:
    with WorkerLog(Path("/dev/full")) as log:
        log.write(line("error", error="first"))
        log.write(line("error", error="second"))
        assert log.last_error() == ("second", "")


def test_the_file_is_bounded_and_the_one_before_kept(tmp_path: Path) -> None:
    chunk = b"y" * 65_535 + b"\n"
    with WorkerLog(tmp_path / "w.log") as log:
        for _ in range(3 * FILE_BYTES // len(chunk)):
            log.write(chunk)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"w.log", "w.log.1"}
    assert max(sizes.values()) <= FILE_BYTES + len(chunk)


def test_a_log_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        with WorkerLog(tmp_path / "w.log") as log:
            log.write(text)
    assert (tmp_path / "w.log").read_bytes() == b"one\ntwo\n"
