"""Plays how a scheduler of pytest-xdist shares tests between processes, without running any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


@dataclass(eq=False)
class Process:
    """Stands for one of pytest-xdist, and notes what it gets."""

    files: Sequence[str]
    given: list[str] = field(default_factory=list)
    shutting_down: bool = False

    @property
    def gateway(self) -> SimpleNamespace:
        return SimpleNamespace(id=str(id(self)))

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.given += [self.files[number] for number in numbers]

    def shutdown(self) -> None:
        self.shutting_down = True


def play(
    scheduler: Callable[[pytest.Config], LoadFileScheduling],
    files: Sequence[str],
    count: int,
    seconds_of: Callable[[str], float],
) -> list[Process]:
    """Have so many processes run three tests of each file, and return them; all tests ran once.

    Args:
        seconds_of: how long a test of a file takes.
    """
    tests = [f"{file}::test_{number}" for file in files for number in range(3)]
    config = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False), getvalue=lambda _: ["popen"] * count
    )
    plan = scheduler(cast("pytest.Config", config))
    processes = [Process(tests) for _ in range(count)]
    nodes = [cast("WorkerController", process) for process in processes]
    for node in nodes:
        plan.add_node(node)
        plan.add_node_collection(node, tests)
    plan.schedule()
    seconds = dict.fromkeys(nodes, 0.0)
    done = dict.fromkeys(nodes, 0)
    while not plan.tests_finished:
        busy = [node for node in nodes if done[node] < len(_given_to(node))]
        node = min(busy, key=lambda each: seconds[each])
        test = _given_to(node)[done[node]]
        done[node] += 1
        seconds[node] += seconds_of(test.partition("::")[0])
        plan.mark_test_complete(node, tests.index(test))
    assert sorted(test for process in processes for test in process.given) == sorted(tests)
    return processes


def _given_to(node: WorkerController) -> list[str]:
    return cast("Process", node).given
