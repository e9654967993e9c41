from pathlib import Path

import pytest

from galley.errors import ManifestInvalid
from galley_local.errors import FilesUnusable
from galley_local.plan import Plan, read_plan

_QUEUE = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: images}
spec: {worker: {modules: [thumbs]}, lanes: [high, low]}
"""
_TASK = """
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: one}
spec: {queueName: images, handler: thumb, priority: low}
"""
_MODULE = "from galley import task\n@task(queue='images')\ndef more(): ...\n@task\ndef other(): ...\n"


async def plan_of(folder: Path, *names: str) -> Plan:
    return await read_plan([folder / name for name in names], folder)


def modules_of(plan: Plan, queue: str) -> tuple[str, ...]:
    return plan.queues["default", queue].resource.spec.worker.modules


async def test_queues_and_tasks_may_stand_in_different_files_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(_TASK)
    (tmp_path / "b.yml").write_text(_QUEUE)
    plan = await plan_of(tmp_path, "a.yaml", "b.yml")
    assert [task.metadata.name for task in plan.tasks] == ["one"]
    assert list(plan.queues) == [("default", "images")]


async def test_schedules_need_their_queue_and_lane_as_tasks_do(tmp_path: Path) -> None:
    schedule = """
apiVersion: galley.dev/v1alpha1
kind: TaskSchedule
metadata: {name: one}
spec: {queueName: images, handler: thumb, priority: low, cron: "@daily"}
"""
    (tmp_path / "a.yaml").write_text(f"{schedule}---{_TASK}")
    (tmp_path / "b.yml").write_text(_QUEUE)
    plan = await plan_of(tmp_path, "a.yaml", "b.yml")
    assert [each.metadata.name for each in plan.schedules] == ["one"]
    assert [task.metadata.name for task in plan.tasks] == ["one"], "a task may have the name of a schedule"
    for old, new, words in (
        ("queueName: images", "queueName: texts", "schedule 'one' names queue 'texts'"),
        ("priority: low", "priority: critical", "schedule 'one' asks for lane 'critical'"),
    ):
        (tmp_path / "a.yaml").write_text(schedule.replace(old, new))
        with pytest.raises(FilesUnusable, match=words):
            await plan_of(tmp_path, "a.yaml", "b.yml")


async def test_a_folder_means_its_manifests_and_not_its_programs(tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text(_QUEUE)
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    assert modules_of(await plan_of(tmp_path, ""), "images") == ("thumbs",)


async def test_a_python_file_joins_the_declared_queue_and_makes_the_others(tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text(_QUEUE)
    below = tmp_path / "code"
    below.mkdir()
    (below / "extra.py").write_text(_MODULE)
    plan = await plan_of(tmp_path, "code/extra.py", "queue.yaml")
    assert modules_of(plan, "images") == ("thumbs", "extra")
    assert modules_of(plan, "default") == ("extra",)
    assert plan.queues["default", "images"].import_paths == (tmp_path, below)
    assert plan.queues["default", "default"].folder == below


async def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text(_QUEUE)
    assert len((await plan_of(tmp_path, "queue.yaml", "queue.yaml")).queues) == 1


async def test_what_stands_in_two_files_is_refused_with_both(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(_QUEUE)
    with pytest.raises(FilesUnusable, match=r"TaskQueue 'images' is declared in .*a\.yaml and in .*b\.yaml"):
        await plan_of(tmp_path, "a.yaml", "b.yaml")


async def test_a_module_may_print_at_its_import(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("print('{}')\n" + _MODULE)
    assert set((await plan_of(tmp_path, "loud.py")).queues) == {("default", "images"), ("default", "default")}


async def test_a_module_finds_its_neighbours_and_not_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('taken for the library')")
    (tmp_path / "neighbour.py").write_text("NAME = 'images'")
    (tmp_path / "mine.py").write_text("import neighbour\n" + _MODULE)
    assert ("default", "images") in (await plan_of(tmp_path, "mine.py")).queues


async def test_a_lane_the_queue_has_not_enabled_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(_QUEUE + "---" + _TASK.replace("priority: low", "priority: normal"))
    with pytest.raises(FilesUnusable) as caught:
        await plan_of(tmp_path, "all.yaml")
    assert "asks for lane 'normal'" in str(caught.value)
    assert "high, low" in caught.value.hint


async def test_a_wrong_manifest_keeps_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(_QUEUE.replace("modules", "module"))
    with pytest.raises(ManifestInvalid, match=r"bad\.yaml:5"):
        await plan_of(tmp_path, "bad.yaml")


async def test_fields_for_a_cluster_alone_are_told(tmp_path: Path) -> None:
    worker = "image: shop, code: {configMapName: code}, template: {env: [{name: A, value: b}]}"
    (tmp_path / "queue.yaml").write_text(_QUEUE.replace("worker: {", f"worker: {{{worker}, "))
    (tmp_path / "task.yaml").write_text(_TASK.replace("spec: {", "spec: {ttlSecondsAfterFinished: 0, "))
    plan = await plan_of(tmp_path, "queue.yaml", "task.yaml")
    assert plan.idle_fields == ["worker.image", "worker.code", "worker.template", "ttlSecondsAfterFinished"]


async def test_nothing_is_told_of_unused_fields(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(_QUEUE.replace("worker: {", "worker: {template: {}, ") + "---" + _TASK)
    assert (await plan_of(tmp_path, "all.yaml")).idle_fields == []
