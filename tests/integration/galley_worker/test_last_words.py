"""What a worker that cannot work leaves behind for whoever looks at its pod."""

from pathlib import Path

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
