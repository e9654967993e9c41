"""What a worker that cannot work leaves behind for people who look at its pod."""

from pathlib import Path

import pytest

from galley_local.nats_server import NatsServer
from galley_worker.main import CANNOT_START
from tests.support.workers import a_task_queue, workers


def test_a_module_that_does_not_import_is_named_in_the_termination_log(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"modules": ["no_such_module"]})
    words = tmp_path / "termination-log"
    with workers(nats_server.url, queue, tmp_path, GALLEY_TERMINATION_LOG=str(words)) as [worker]:
        assert worker.process.wait(30) == CANNOT_START
    said = words.read_text()
    assert said.startswith("module 'no_such_module' does not import: ")
    assert "spec.worker.modules" in said


def test_the_traceback_of_a_failed_import_is_kept_as_far_as_it_is_the_users(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "thumbs.py").write_text("def look_up():\n    return {}['colour']\n\n\nlook_up()\n")
    queue = a_task_queue(namespace, worker={"modules": ["thumbs"]})
    words = tmp_path / "termination-log"
    told = {"GALLEY_TERMINATION_LOG": str(words), "GALLEY_IMPORT_PATHS": str(tmp_path)}
    with workers(nats_server.url, queue, tmp_path, **told) as [worker]:
        assert worker.process.wait(30) == CANNOT_START
        [line] = worker.logged("worker cannot work")
    assert (line["namespace"], line["queue"], line["worker"]) == (namespace, "drills", "w1")
    said = words.read_text()
    trace = said.partition("\n")[2]
    assert trace.splitlines()[-1] == "KeyError: 'colour'"
    assert 'thumbs.py", line 2, in look_up' in trace
    assert "importlib" not in trace
    assert line["traceback"] in said


@pytest.mark.parametrize(
    ("modules", "says"),
    [([], "queue 'drills' has no handlers; name modules"), (["string"], "string imported, without a @task")],
)
def test_a_queue_without_handlers_is_told_there_and_takes_no_task(
    nats_server: NatsServer, namespace: str, tmp_path: Path, modules: list[str], says: str
) -> None:
    words = tmp_path / "termination-log"
    queue = a_task_queue(namespace, worker={"modules": modules})
    with workers(nats_server.url, queue, tmp_path, GALLEY_TERMINATION_LOG=str(words)) as [worker]:
        assert worker.process.wait(30) == CANNOT_START
        assert not worker.ready
    assert says in words.read_text()


def test_wrong_settings_are_told_there_as_well(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    words = tmp_path / "termination-log"
    told = {"GALLEY_TERMINATION_LOG": str(words), "GALLEY_HEALTH_PORT": "http"}
    with workers(nats_server.url, a_task_queue(namespace), tmp_path, **told) as [worker]:
        assert worker.process.wait(30) == CANNOT_START
    assert "GALLEY_HEALTH_PORT" in words.read_text()


def test_a_log_that_cannot_be_written_changes_nothing(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"modules": ["no_such_module"]})
    words = tmp_path / "no" / "such" / "folder"
    with workers(nats_server.url, queue, tmp_path, GALLEY_TERMINATION_LOG=str(words)) as [worker]:
        assert worker.process.wait(30) == CANNOT_START
        assert worker.logged("worker cannot work")
