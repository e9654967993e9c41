"""Files of tests that compute are run beside those that wait."""

from pathlib import Path

import pytest

from tests.support.side_by_side import LONGEST, SideBySide, computes
from tests.unit.support.played import Process, play

ROOT = Path(__file__).parents[3]
SOME = sorted((ROOT / "tests").rglob("test_*.py"))[::5]
FILES = sorted({*LONGEST, *(str(file.relative_to(ROOT)) for file in SOME)})


def played(count: int) -> list[Process]:
    return play(SideBySide, FILES, count, lambda _file: 1)


def files_of(process: Process) -> list[str]:
    return list(dict.fromkeys(test.partition("::")[0] for test in process.given))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_all_tests_run_with_any_number_of_processes(count: int) -> None:
    assert {file for process in played(count) for file in files_of(process)} == set(FILES)


def test_one_process_of_four_begins_with_files_that_compute_and_all_end_together() -> None:
    processes = [files_of(process) for process in played(8)]
    assert [computes(files[0]) for files in processes] == [True, False, False, False] * 2
    for files in processes:
        kinds = [computes(file) for file in files]
        assert kinds == sorted(kinds, reverse=kinds[0]), "one kind after the other"
    lengths = [len(files) for files in processes]
    assert max(lengths) - min(lengths) <= 2


def test_the_longest_files_come_first() -> None:
    assert all((ROOT / file).exists() for file in LONGEST)
    (process,) = played(1)
    waiting = [file for file in files_of(process) if not computes(file)]
    assert set(waiting[: len(LONGEST)]) == set(LONGEST)
