"""`galley backup` and `galley restore` with an API server: NATS lost its disk, or a namespace its objects."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.api.scene import Scene, a_schedule, a_task
from galley.schedule import RUN_NOW
from galley_local.nats_server import NatsServer
from tests.support.api_server import ApiServer
from tests.support.backups import lose_disk

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def stage(galley_api: ApiServer, own_nats_server: NatsServer, api_namespace: str, tmp_path: Path) -> Scene:
    """A namespace, with a NATS of its own."""
    (tmp_path / "archives").mkdir()
    (tmp_path / "backup.key").write_bytes(b"k" * 32)
    return Scene(galley_api, own_nats_server.url, api_namespace, tmp_path)


def galley(stage: Scene, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the chart does."""
    environment = {
        **os.environ,
        "GALLEY_SERVER": stage.server,
        "GALLEY_BACKUP_KEY_FILE": "backup.key",
        "KUBECONFIG": str(stage.api.kubeconfig),
    }
    return subprocess.run(
        [sys.executable, "-m", "galley.cli.main", *words],
        cwd=stage.folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


async def half_done(stage: Scene) -> None:
    """Have ten Tasks that have ended, and ten that wait."""
    queue = await stage.queue()
    ended = [a_task(f"ended-{number}", "note", input={"word": f"ended-{number}"}) for number in range(10)]
    waiting = [a_task(f"waits-{number}", "note", input={"word": f"waits-{number}"}) for number in range(10)]
    with stage.data_path():
        with stage.workers(queue) as fleet:
            stage.apply(*ended)
            await stage.all_in("Succeeded", 10, within=30)
            for worker in fleet:
                assert worker.end() == 0
        stage.apply(*waiting)

        def all_queued() -> bool:
            assert stage.phases() == {"Succeeded": 10, "Queued": 10}
            return True

        await stage.until(all_queued, within=30, why="ten Tasks are queued")


async def test_tasks_go_on_where_they_were_after_nats_lost_its_disk(
    stage: Scene, own_nats_server: NatsServer
) -> None:
    await half_done(stage)
    assert "20 messages of 7 streams, 21 objects" in done(
        galley(stage, "backup", "take", "archives", "-n", stage.namespace)
    )
    lose_disk(own_nats_server, stage.folder / "nats")
    await own_nats_server.start()
    told = galley(stage, "restore", "archives", "--dry-run")
    assert f"stream GW_{stage.namespace}_drills: create, 10 messages" in told.stderr
    assert "10 Tasks have ended and are not created again" in told.stderr
    assert "nothing was changed" in done(told)
    assert "20 messages written" in done(galley(stage, "restore", "archives"))
    again = galley(stage, "restore", "archives")
    assert again.returncode == 3
    assert (
        f"error: stream GW_{stage.namespace}_drills holds 10 messages; nothing was restored" in again.stderr
    )
    queue = await stage.queue()
    with stage.data_path(), stage.workers(queue, "w2"):
        await stage.all_in("Succeeded", 20, within=60)
    assert set(stage.runs().values()) == {1}


async def test_objects_and_tasks_are_restored_into_another_namespace(
    stage: Scene, own_nats_server: NatsServer
) -> None:
    await half_done(stage)
    nightly = a_schedule("nightly", cron="0 3 * * *")
    nightly["metadata"]["annotations"] = {RUN_NOW: "once"}
    stage.apply(nightly)
    done(galley(stage, "backup", "take", "archives", "-n", stage.namespace))
    lose_disk(own_nats_server, stage.folder / "nats")
    await own_nats_server.start()
    old, new = stage.namespace, f"{stage.namespace}-new"
    stage.api.kubectl("create", "namespace", new)
    stage.api.kubectl("delete", "tasks,taskqueues,taskschedules", "--all", "-n", old, "--wait=false")
    assert "12 objects created" in done(galley(stage, "restore", "archives", "--map", f"{old}={new}"))
    # It keeps what it was told, but for the wish to run at once, which was heeded before the backup.
    schedule = stage.api.kubectl.get("taskschedule", "nightly", "-n", new)
    assert (schedule["spec"]["cron"], schedule["metadata"].get("annotations") or {}) == ("0 3 * * *", {})
    stage.namespace = new
    assert {task["metadata"]["name"] for task in stage.tasks()} == {f"waits-{number}" for number in range(10)}
    queue = await stage.queue()
    with stage.data_path(), stage.workers(queue, "w2"):
        await stage.all_in("Succeeded", 10, within=60)
        # One that had ended, applied again, does not run again.
        stage.apply(a_task("ended-3", "note", input={"word": "ended-3"}))
        await stage.status("ended-3", phase="Succeeded", reason="AlreadyRan")
    assert set(stage.runs().values()) == {1}


def test_errors_say_what_to_do(stage: Scene) -> None:
    nothing = galley(stage, "backup", "verify", "archives")
    assert nothing.returncode == 1
    assert "error: there is no archive latest" in nothing.stderr
    away = galley(stage, "backup", "take", "archives", "--server", "nats://127.0.0.1:1")
    assert away.returncode == 4
    nowhere = galley(stage, "backup", "take", "nowhere")
    assert nowhere.returncode == 2
    assert "hint: name a folder that exists, or s3://BUCKET/PREFIX" in nowhere.stderr
    (stage.folder / "backup.key").write_bytes(b"short")
    keyless = galley(stage, "backup", "take", "archives")
    assert keyless.returncode == 2
    assert "hint: make one: openssl rand -base64 32" in keyless.stderr
    assert "archives" not in galley(stage, "backup", "list", "archives").stderr
