"""A pytest plugin: files of tests that compute are run beside those that wait for processes.

Run after each other, the ones leave half of the cores idle, and the others share cores that have nothing to
spare. So a quarter of the processes of pytest-xdist begins with files that compute, and the others with files
that wait, those that take longest first.
"""

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

_COMPUTE: Final = ("tests/unit/", "tests/checks/", "tests/simulation/", "tests/typing/")
LONGEST: Final = (
    "tests/integration/test_documents.py",
    "tests/integration/test_wrong_broker.py",
    "tests/integration/galley_local/test_dev.py",
    "tests/integration/galley_worker/test_faults.py",
    "tests/integration/galley_local/test_pytest_plugin.py",
    "tests/integration/galley_operator/test_budget.py",
    "tests/failpoints/test_freeze.py",
    "tests/integration/galley_worker/test_free_slots.py",
    "tests/storm/test_scale_in.py",
    "tests/storm/test_storm_of_graphs.py",
    "tests/storm/test_storm_of_topics.py",
    "tests/storm/test_storm.py",
    "tests/storm/test_hostile.py",
    "tests/failpoints/test_crash.py",
)
"""Files that would keep a process busy when all others have ended."""
_EACH: Final = 4
"""One process of so many begins with files that compute."""


def computes(file: str) -> bool:
    """Whether the tests of a file wait little; a mistake here costs time, and changes no test."""
    return file.startswith(_COMPUTE)


class SideBySide(LoadFileScheduling):  # type: ignore[misc]  # it has no types
    """Gives a process files of its kind, and the others once there are none left."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._computing: dict[WorkerController, bool] = {}

    def _assign_work_unit(self, node: WorkerController) -> None:
        computing = self._computing.setdefault(node, len(self._computing) % _EACH == 0)
        file = min(self.workqueue, key=lambda each: (computes(each) != computing, each not in LONGEST))
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    """Share so."""
    return SideBySide(config, log)
