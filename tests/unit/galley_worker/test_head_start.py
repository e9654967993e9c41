"""The first child of a worker, which is begun before the worker itself is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from galley_worker.head_start import guessed
from galley_worker.settings import read_queue, read_settings
from tests.support.workers import a_task_queue


def manifest(folder: Path, **worker: Any) -> dict[str, str]:
    """Write the manifest of a queue; return the environment of its worker."""
    queue = a_task_queue("shop", "drills", worker=worker)
    (folder / "queue.json").write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
    return {"GALLEY_QUEUE_MANIFEST": str(folder / "queue.json"), "GALLEY_WORKER": "w1"}


@pytest.mark.parametrize(
    ("worker", "more"),
    [
        ({}, {}),
        ({"modules": ["a", "b.c"], "preload": ["d"], "logLevel": "DEBUG"}, {}),
        ({"logLevel": "DEBUG"}, {"GALLEY_LOG_LEVEL": "WARNING"}),
        ({}, {"GALLEY_IMPORT_PATHS": "/one:/two"}),
        ({}, {"GALLEY_IMPORT_PATHS": '["/a:b"]'}),
    ],
)
def test_the_first_child_is_begun_with_what_the_worker_asks_for(
    tmp_path: Path, worker: dict[str, Any], more: dict[str, str]
) -> None:
    environment = manifest(tmp_path, **worker) | more
    guess = guessed(environment)
    settings = read_settings(environment)
    spec = read_queue(settings.queue_manifest).spec.worker
    assert guess is not None
    assert (guess.namespace, guess.setup.queue, guess.setup.kind) == ("shop", "drills", "first")
    assert guess.preload == spec.preload
    assert guess.setup.modules == (*spec.preload, *spec.modules)
    assert guess.setup.import_paths == settings.paths
    assert guess.setup.log_level == (settings.handler_log_level or spec.log_level.value)


def test_a_manifest_without_defaults_is_enough(tmp_path: Path) -> None:
    queue = {"metadata": {"name": "q", "namespace": "n"}, "spec": {"worker": {"modules": ["m"]}}}
    (tmp_path / "queue.json").write_text(json.dumps(queue))
    guess = guessed({"GALLEY_QUEUE_MANIFEST": str(tmp_path / "queue.json")})
    assert guess is not None
    assert (guess.setup.modules, guess.setup.log_level, guess.setup.import_paths) == (("m",), "INFO", ())


@pytest.mark.parametrize(
    "content",
    [
        None,
        "metadata: {name: q}",
        "[]",
        '{"metadata": {"name": "q", "namespace": "n"}, "spec": {}}',
        '{"metadata": {"name": "q"}, "spec": {"worker": {"modules": ["m"]}}}',
        '{"metadata": {"name": "q", "namespace": 7}, "spec": {"worker": {"modules": ["m"]}}}',
        '{"metadata": {"name": "q", "namespace": "n"}, "spec": {"worker": {"modules": []}}}',
        '{"metadata": {"name": "q", "namespace": "n"}, "spec": {"worker": {"modules": "m"}}}',
        '{"metadata": {"name": "q", "namespace": "n"}, "spec": {"worker": {"modules": [1]}}}',
        '{"metadata": null, "spec": {"worker": ["modules"]}}',
    ],
)
def test_nothing_is_begun_for_a_manifest_that_shows_no_modules(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "queue").write_text(content)
    assert guessed({"GALLEY_QUEUE_MANIFEST": str(tmp_path / "queue")}) is None
    assert guessed({}) is None


PROGRAM = """
import asyncio, errno, os, resource, sys
from dataclasses import replace
from pathlib import Path
from galley_worker.runners.child.entry import Setup
from galley_worker.runners.child.kernel import tree_of
from galley_worker.runners.fork_server import ForkServer
from galley_worker.runners.socket_folder import socket_folder

folder = sys.argv[1]
setup = Setup("drills", ("late_module",), (folder,), "first")
line = Path("/proc/self/cmdline").read_bytes()

def forked():
    return [one for one in tree_of(os.getpid())[1:] if Path(f"/proc/{one}/cmdline").read_bytes() == line]

async def child(asked):
    with ForkServer((), (folder,)) as server:
        made = await server.fork(asked)
        where = "ahead" if made.process.pid in forked() else "afterwards"
        Path(folder, "gate").write_text("")  # it lives until then
        made.wire.settimeout(60)
        said = b"late" in made.wire.recv(65536)
        made.wire.close()
        await server.collect(made)
        print(where, said)

def begun(preload=()):
    return ForkServer(preload, (folder,)).begun(setup)

def refuse():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

with socket_folder():
    with begun():
        asyncio.run(child(setup))
    with begun():
        asyncio.run(child(replace(setup, log_level="DEBUG")))
    with begun(preload=("hanging_module",)):
        print(len(forked()))
    print(forked())
    fork, os.fork = os.fork, refuse
    with begun():
        print("refused", forked())
    os.fork = fork
    resource.setrlimit(resource.RLIMIT_RTTIME, (10**9, 10**9))
    with begun():
        print("without a mark", forked())
print("left", tree_of(os.getpid())[1:])
"""


def test_a_child_that_was_begun_is_used_if_it_is_the_one_asked_for(tmp_path: Path) -> None:
    (tmp_path / "hanging_module.py").write_text("import time\ntime.sleep(3600)\n")
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "late_module.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('gate').read_text()\nraise RuntimeError('late')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=120,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "ahead True",
        "afterwards True",
        "1",
        "[]",
        "refused []",
        "without a mark []",
        "left []",
    ]
