"""An exception in any callback of `galley dev` costs one look, and its queues go on."""

import importlib
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

import galley_local
from galley.cli.terminal import Terminal
from galley_local.dev import DevOptions, dev
from tests.support.callbacks import Callbacks, Raising
from tests.support.workers import HANDLERS

ELSEWHERE: Final = {
    "World.": "of galley simulate: its command ends with the traceback",
    "WorkersInTests.": "of tests with real workers: the test fails",
    "Run._reread": "within CodeWatch.run",
    "ProcessFleet._note": "within Seat.run",
    "QueueRuntime._supply": "within the answer to one question of a client",
    "TaskBoard.tasks": "within a look; test_dev.py",
}
"""Callbacks that are not tried here, by how their names begin, and why."""

CALLBACKS: Final = Callbacks(galley_local)
TRIED: Final = sorted(name for name in CALLBACKS.certain if not name.startswith(tuple(ELSEWHERE)))
MANIFEST: Final = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: drills}
spec:
  worker: {modules: [drills]}
---
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: said}
spec: {queueName: drills, handler: echo, input: {value: 1}}
"""


@pytest.fixture
def _own_logs() -> object:
    before, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


@pytest.mark.usefixtures("_own_logs")
async def test_an_exception_in_each_callback_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising = {}
    for name in TRIED:
        each = CALLBACKS.all[name]
        cls = getattr(importlib.import_module(each.module), each.owner)
        method = "_look" if name == "ServerWatch.run" else each.name
        raising[name] = Raising(cls.__dict__[method])
        monkeypatch.setattr(cls, method, raising[name].method)
    manifest = tmp_path / "drills.yaml"
    manifest.write_text(MANIFEST)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HANDLERS), os.environ.get("PYTHONPATH", "")]))
    terminal = Terminal(None, sys.stdout, sys.stderr, os.environ, tmp_path, lambda: datetime.now(UTC))
    assert await dev(DevOptions((manifest,), until_done=True), terminal) == 0
    assert {name: each.times > 0 for name, each in raising.items()} == dict.fromkeys(TRIED, True)
    log = tmp_path / ".galley" / "logs" / "dev.log"
    assert log.read_text().count("raised by a test") >= len(TRIED)
