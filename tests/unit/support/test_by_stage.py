"""Files of tests go to processes that have what they need."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from xdist.workermanage import WorkerController

from tests.support.by_stage import ByStage, stage_of

ROOT = Path(__file__).parents[3]
CLUSTER, API_SERVER = "e2e/test_storm.py", "e2e/api/test_queues.py"


@dataclass(eq=False)
class Process:
    """Stands for one of pytest-xdist, and notes what it gets."""

    files: list[str]
    given: list[str] = field(default_factory=list)
    shutting_down: bool = False

    @property
    def gateway(self) -> SimpleNamespace:
        return SimpleNamespace(id=str(id(self)))

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.given += [self.files[number] for number in numbers]

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def scheduled() -> Any:
    def play(count: int) -> list[Process]:
        files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "e2e").rglob("test_*.py"))]
        tests = [f"{file}::test_{number}" for file in files for number in range(3)]
        config = SimpleNamespace(
            option=SimpleNamespace(loadscopereorder=False), getvalue=lambda _: ["popen"] * count
        )
        plan = ByStage(cast("pytest.Config", config))
        processes = [Process(tests) for _ in range(count)]
        nodes = [cast("WorkerController", process) for process in processes]
        for node in nodes:
            plan.add_node(node)
            plan.add_node_collection(node, tests)
        plan.schedule()
        seconds = dict.fromkeys(nodes, 0)
        done = dict.fromkeys(nodes, 0)
        while not plan.tests_finished:
            busy = [node for node in nodes if done[node] < len(given_to(node))]
            node = min(busy, key=lambda each: seconds[each])
            test = given_to(node)[done[node]]
            done[node] += 1
            seconds[node] += 4 if stage_of(test.partition("::")[0]) == "cluster" else 1
            plan.mark_test_complete(node, tests.index(test))
        assert sorted(test for process in processes for test in process.given) == sorted(tests)
        return processes

    return play


def given_to(node: WorkerController) -> list[str]:
    return cast("Process", node).given


def stages(process: Process) -> set[str]:
    return {stage_of(test.partition("::")[0]) for test in process.given} - {""}


def test_what_a_file_needs_is_seen_in_it() -> None:
    assert (stage_of(CLUSTER), stage_of(API_SERVER)) == ("cluster", "API server")
    assert stage_of("e2e/test_rights.py") == "API server"
    assert stage_of("e2e/test_images.py") == ""


def test_all_tests_run_and_only_one_process_of_three_has_an_api_server(scheduled: Any) -> None:
    assert sorted(map(stages, scheduled(3)), key=str) == [{"API server"}, {"cluster"}, {"cluster"}]


@pytest.mark.parametrize("count", [1, 2, 6])
def test_all_tests_run_with_any_number_of_processes(scheduled: Any, count: int) -> None:
    assert set().union(*map(stages, scheduled(count))) == {"cluster", "API server"}
