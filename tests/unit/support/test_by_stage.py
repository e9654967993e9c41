"""Files of tests go to processes that have what they need."""

from pathlib import Path

import pytest

from tests.support.by_stage import ByStage, stage_of
from tests.unit.support.played import Process, play

ROOT = Path(__file__).parents[3]
CLUSTER, API_SERVER = "e2e/test_storm.py", "e2e/api/test_queues.py"


def played(count: int) -> list[Process]:
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "e2e").rglob("test_*.py"))]
    return play(ByStage, files, count, lambda file: 4 if stage_of(file) == "cluster" else 1)


def stages(process: Process) -> set[str]:
    return {stage_of(test.partition("::")[0]) for test in process.given} - {""}


def test_what_a_file_needs_is_seen_in_it() -> None:
    assert (stage_of(CLUSTER), stage_of(API_SERVER)) == ("cluster", "API server")
    assert stage_of("e2e/test_rights.py") == "API server"
    assert stage_of("e2e/test_images.py") == ""


def test_all_tests_run_and_only_one_process_of_three_has_an_api_server() -> None:
    assert sorted(map(stages, played(3)), key=str) == [{"API server"}, {"cluster"}, {"cluster"}]


@pytest.mark.parametrize("count", [1, 2, 6])
def test_all_tests_run_with_any_number_of_processes(count: int) -> None:
    assert set().union(*map(stages, played(count))) == {"cluster", "API server"}
