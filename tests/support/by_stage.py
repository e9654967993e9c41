"""A pytest plugin: the processes of pytest-xdist share the files of tests by what these start.

A cluster costs a minute of processor time with its images and the release, and more as long as it is there;
an API server alone a few seconds, and some. So a process that has one gets the other files that need one.
"""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

_ROOT: Final = Path(__file__).parents[2]
_CLUSTER: Final = re.compile(r"\b(galley: Release|place: Place|cluster: (Real)?Cluster\b|namespace_of_pods)")
_API_SERVER: Final = re.compile(r"\w: (ApiServer|Scene|Stage)\b")
"""What tests and fixtures of a file ask for."""
_WEIGHT: Final = {"cluster": 3, "API server": 1}
"""How long a file takes on average, compared with others."""
_WORTH: Final = 3
"""From how many waiting files for each process with such a stage on another one starts one, too."""


@cache
def stage_of(file: str) -> str:
    """Return what the tests of a file start and share with others; empty for nothing.

    A mistake here costs time, and changes no test.
    """
    text = (_ROOT / file).read_text()
    if file.startswith("e2e/api/"):
        return "API server"
    if _CLUSTER.search(text):
        return "cluster"
    return "API server" if _API_SERVER.search(text) else ""


class ByStage(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """Gives a process the files of the stage that it has, in the order of the others."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._stages: dict[WorkerController, set[str]] = {}

    def _reschedule(self, node: WorkerController) -> None:
        if not node.shutting_down and self.workqueue and not self._next(node):
            node.shutdown()  # its stage costs something as long as it is there
            return
        super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        file = self._next(node) or next(iter(self.workqueue))
        self.workqueue.move_to_end(file, last=False)
        self._stages.setdefault(node, set()).add(stage_of(file))
        super()._assign_work_unit(node)

    def _next(self, node: WorkerController) -> str:
        """Return the file that this process gets next, empty if none is worth its while."""
        own = self._stages.get(node, set())
        waiting: dict[str, str] = {file: stage_of(file) for file in reversed(self.workqueue)}
        first = {stage: file for file, stage in waiting.items()}
        if there := own & first.keys() - {""}:
            return first[min(there)]
        if own and "" in first:
            return first[""]
        counted = Counter(waiting.values())
        having = Counter(stage for each in self.nodes for stage in self._stages.get(each, ()))
        shares = {stage: _WEIGHT[stage] * counted[stage] / (having[stage] + 1) for stage in first if stage}
        stage = max(shares, key=lambda each: shares[each], default="")
        if own and stage and having[stage] and counted[stage] <= _WORTH * having[stage]:
            return ""
        return first.get(stage, "")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByStage:
    """Share by stage."""
    return ByStage(config, log)
