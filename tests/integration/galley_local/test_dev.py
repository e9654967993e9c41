import asyncio
import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from galley import AsyncClient, dev_file
from galley.broker.connection import Broker
from galley_local.command import command
from tests.integration.galley_local.dev_process import Dev, dev, environment, galley
from tests.support.command import run_command
from tests.support.eventually import eventually

REPOSITORY = Path(__file__).resolve().parents[3]

_HANDLERS = """
from pathlib import Path
import time

from galley import task

@task(queue="sums")
def add(a: int, b: int) -> int:
    return a + b

@task(queue="sums")
def until(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.02)
    return "released"
"""

_SLOW = """
@task(queue="sums")
def slow() -> None:
    time.sleep(1.5)
"""

_STRAYS = """
import subprocess
import time

from galley import task

@task(queue="sums")
def stray(path: str) -> None:
    script = f"setsid sh -c 'echo $$ > {path}.new; mv {path}.new {path}; sleep 1000' & exit 0"
    subprocess.run(["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, check=True)
    time.sleep(1000)
"""

_QUEUE = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: sums}
spec:
  worker: {modules: [sums], concurrency: 2, gracePeriodSeconds: 5}
  scaling: {maxWorkers: 2, idleSeconds: 0}
---
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: first}
spec: {queueName: sums, handler: add, input: {a: 1, b: 2}}
"""

_OTHER = """
apiVersion: galley.dev/v1alpha1
kind: TaskQueue
metadata: {name: other}
spec:
  worker: {modules: [other]}
---
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: second}
spec: {queueName: other, handler: one}
"""

_FAILING = """
apiVersion: galley.dev/v1alpha1
kind: Task
metadata: {name: fails%s}
spec: {queueName: sums, handler: add, input: {a: 1, b: "no number"}, retry: {attempts: 1}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "sums.py").write_text(_HANDLERS)
    (tmp_path / "queue.yaml").write_text(_QUEUE)
    return tmp_path


async def phase_of(project: Path, task: str) -> str:
    said = await galley(project, "show", task, "-o", "json")
    return str(json.loads(said.out)["phase"]) if said.code == 0 else said.err


async def has_phase(project: Path, task: str, phase: str) -> None:
    async def seen() -> bool:
        found = await phase_of(project, task)
        assert found == phase, found
        return True

    await eventually(seen, within=30, why=f"{task} is {phase}")


async def test_until_done_ends_without_workers_and_leaves_results_that_a_second_run_knows(
    project: Path,
) -> None:
    nothing = await galley(project, "get", "tasks")
    assert (nothing.code, nothing.out) == (4, "")
    said = await galley(project, "dev", "queue.yaml", "--until-done")
    assert said.code == 0, said.out + said.err
    assert "sums   first  normal  Succeeded         1" in said.out
    assert "workers of sums:\n  0 -> 1  at" in said.out
    assert "1 -> 0  at" in said.out
    assert not dev_file.path_in(project).exists()
    await results_can_be_read(project)
    again = await galley(project, "dev", "queue.yaml", "--until-done")
    assert again.code == 0
    assert "1 unchanged" in again.out
    assert "none were needed" in again.out
    fresh = await galley(project, "dev", "queue.yaml", "--until-done", "--fresh")
    assert "1 task submitted" in fresh.out


async def test_until_done_does_not_wait_for_the_idle_time_of_a_queue(project: Path) -> None:
    manifest = project / "queue.yaml"
    manifest.write_text(manifest.read_text().replace("idleSeconds: 0", "idleSeconds: 3600"))
    said = await galley(project, "dev", "queue.yaml", "--until-done")
    assert said.code == 0, said.out + said.err
    assert "1 -> 0  at" in said.out


async def results_can_be_read(project: Path) -> None:
    below = project / "some" / "folder"
    below.mkdir(parents=True)
    shown = await galley(below, "show", "first", "-o", "json")
    assert (shown.code, json.loads(shown.out)["result"]) == (0, 3)
    assert "reading what the last one kept" in shown.err
    both = await asyncio.gather(
        galley(project, "get", "tasks", "-o", "name"), galley(project, "get", "queues", "-o", "name")
    )
    told = [each.err for each in both]
    assert [each.out for each in both] == ["sums/first\n", "sums\n"], told
    submitted = await galley(project, "submit", "sums", "add", "{}")
    assert (submitted.code, submitted.out) == (4, "")


async def test_a_failed_task_fails_the_run(project: Path) -> None:
    (project / "fails.yaml").write_text(_FAILING % "")
    said = await galley(project, "dev", "queue.yaml", "fails.yaml", "--until-done")
    assert said.code == 1, said.out
    assert "InputInvalid" in said.out


async def test_another_terminal_submits_lists_shows_and_cancels(project: Path) -> None:
    async with dev(project, "sums.py"):
        below = project / "some" / "folder"
        below.mkdir(parents=True)
        result = await galley(below, "submit", "sums", "add", '{"a": 2, "b": 3}', "--wait", "30")
        assert (result.code, result.out) == (0, "5\n")
        gate = project / "gate"
        held = await galley(
            project, "submit", "sums", "until", json.dumps({"path": str(gate)}), "--id", "held"
        )
        assert held.out == "held\n"
        await has_phase(project, "held", "Running")
        listed = await galley(project, "get", "tasks", "sums", "--phase", "running", "-o", "name")
        assert listed.out == "sums/held\n"
        [held_now] = json.loads(
            (await galley(project, "get", "tasks", "--phase", "running", "-o", "json")).out
        )
        assert (held_now["phase"], held_now["worker"], held_now["attempt"]) == ("Running", "sums-1", 1)
        assert held_now["submittedAt"] <= held_now["startedAt"]
        assert held_now["input"] == {"path": str(gate)}
        shown = await galley(project, "show", "held")
        assert "Phase:     Running\n" in shown.out
        assert "Started:   2" in shown.out
        later = await galley(
            project, "submit", "sums", "add", "-", "--id", "later", "--delay", "600", stdin="{}"
        )
        assert later.code == 0
        cancelled = await galley(project, "cancel", "held", "sums/later")
        assert cancelled.out == "task/held: cancelled while it ran\ntask/later: cancelled before it ran\n"
        assert await phase_of(project, "held") == "Cancelled"
        waited = await galley(project, "submit", "sums", "until", '{"path": "/no/such"}', "--wait", "0.2")
        assert (waited.code, waited.out) == (124, "")


async def test_ctrl_c_drains_what_runs_and_a_restart_keeps_what_waits(project: Path) -> None:
    gate = project / "gate"
    (project / "queue.yaml").write_text(_QUEUE.replace("gracePeriodSeconds: 5", "gracePeriodSeconds: 90"))
    async with dev(project, "queue.yaml") as running:
        await galley(project, "submit", "sums", "until", json.dumps({"path": str(gate)}), "--id", "held")
        await galley(project, "submit", "sums", "add", '{"a": 1, "b": 1}', "--id", "later", "--delay", "3")
        await has_phase(project, "held", "Running")
        await running.says("Running on sums-")
        await galley(project, "pause", "sums")
        running.interrupt()
        await running.says("may finish within 90 s")
        gate.touch()
        assert await running.ends() == 0
        assert running.said("task/held (sums): Succeeded"), running.lines
    gone = await galley(project, "cancel", "held")
    assert (gone.code, gone.out) == (4, "")
    async with dev(project, "queue.yaml") as again:
        assert await phase_of(project, "held") == "Succeeded"
        await again.says("queue/sums: paused; galley resume sums starts tasks again")
        await galley(project, "resume", "sums")
        await has_phase(project, "later", "Succeeded")


async def test_a_second_ctrl_c_stops_at_once_and_leaves_no_process(project: Path) -> None:
    async with dev(project, "queue.yaml") as running:
        await galley(project, "submit", "sums", "until", '{"path": "/no/such"}', "--id", "held")
        await has_phase(project, "held", "Running")
        ours = psutil.Process(running.process.pid).children(recursive=True)
        running.interrupt()
        await running.says("may finish within")
        running.interrupt()
        assert await running.ends(within=30) == 130
        assert running.said("stopped at once")
        await eventually(lambda: not any(alive(process) for process in ours), within=30)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_killed_outright_it_takes_its_processes_along(project: Path) -> None:
    async with dev(project, "queue.yaml") as running:
        await galley(project, "submit", "sums", "until", '{"path": "/no/such"}', "--id", "held")
        await has_phase(project, "held", "Running")
        ours = psutil.Process(running.process.pid).children(recursive=True)
        assert len(ours) >= 2
        running.process.kill()
        await eventually(lambda: not any(alive(process) for process in ours), within=30)
    said = await galley(project, "cancel", "held")
    assert said.code == 4
    assert "is not running" in said.err


def server_of(running: Dev) -> psutil.Process:
    [server] = [
        each for each in psutil.Process(running.process.pid).children() if each.name() == "nats-server"
    ]
    return server


async def test_a_nats_server_that_dies_is_started_again_with_its_tasks(project: Path) -> None:
    async with dev(project, "queue.yaml") as running:
        await has_phase(project, "first", "Succeeded")
        os.kill(server_of(running).pid, signal.SIGKILL)
        await running.says("nats-server is back")
        assert await phase_of(project, "first") == "Succeeded"
        said = await galley(project, "submit", "sums", "add", '{"a": 4, "b": 4}', "--wait", "60")
        assert said.out == "8\n"


@pytest.mark.parametrize("killed", ["galley dev", "the worker"])
async def test_a_program_without_an_environment_ends_with_what_is_killed_outright(
    project: Path, killed: str
) -> None:
    (project / "sums.py").write_text(_STRAYS)
    async with dev(project, "sums.py") as running:
        await galley(project, "submit", "sums", "stray", json.dumps({"path": str(project / "pid")}))
        await eventually((project / "pid").exists, within=20)
        stray = psutil.Process(int((project / "pid").read_text()))
        assert alive(stray)
        [starter] = [
            one for one in psutil.Process(running.process.pid).children() if "galley_worker" in one.cmdline()
        ]
        [worker] = starter.children()
        (worker if killed == "the worker" else psutil.Process(running.process.pid)).kill()
        # It may stay a zombie: the process of the tests adopts it, and does not wait for it.
        await eventually(lambda: not alive(stray), within=30)


async def test_one_folder_has_one_galley_dev(project: Path) -> None:
    async with dev(project, "queue.yaml"):
        said = await galley(project, "dev", "queue.yaml")
        assert said.code == 1
        assert said.err.startswith("error: `galley dev` runs already in ")


async def test_a_module_that_does_not_import_is_named_and_its_tasks_wait(project: Path) -> None:
    (project / "sums.py").write_text("import nothing_of_that_name")
    async with dev(project, "queue.yaml") as running:
        await running.says("nothing_of_that_name")
        assert await phase_of(project, "first") == "Queued"


async def test_until_done_ends_if_no_worker_of_the_tasks_that_are_left_can_start(project: Path) -> None:
    (project / "other.py").write_text("from galley import task\n\n@task\ndef one() -> int:\n    return 1\n")
    (project / "other.yaml").write_text(_OTHER)
    (project / "sums.py").write_text("import nothing_of_that_name")
    said = await galley(project, "dev", "queue.yaml", "other.yaml", "--until-done")
    assert said.code == 1
    assert said.err.startswith("error: workers of queue 'sums' do not start: module 'sums' does not import")
    assert "Traceback" not in said.err
    (project / "sums.py").write_text(_HANDLERS)
    again = await galley(project, "dev", "queue.yaml", "other.yaml", "--until-done")
    assert again.code == 0, again.out + again.err
    assert "2 unchanged" in again.out
    assert "other  second  normal  Succeeded" in again.out


async def test_a_waiting_client_is_told_why_no_worker_starts_until_one_does(project: Path) -> None:
    good = (project / "sums.py").read_text()
    (project / "sums.py").write_text("import nothing_of_that_name")
    async with dev(project, "queue.yaml"):
        one = "submit", "sums", "add", "{}", "--id", "one"
        assert (await galley(project, *one)).code == 0

        async def known() -> bool:
            return "workerProblem" in (await galley(project, "show", "one", "-o", "json")).out

        await eventually(known, within=60)
        waited = await galley(project, *one, "--wait", "10")
        assert waited.code == 124
        told = "workers of queue 'sums' do not start: module 'sums' does not import: "
        assert f"still waiting: {told}" in waited.err
        assert f"had not ended after 10 s; {told}" in waited.err
        assert waited.err.count("still waiting") == 1
        shown = await galley(project, "show", "one", "-o", "json")
        assert "nothing_of_that_name" in json.loads(shown.out)["workerProblem"]
        (project / "sums.py").write_text(good)
        assert (
            await galley(project, "submit", "sums", "add", '{"a": 1, "b": 1}', "--wait", "50")
        ).out == "2\n"
        assert "workerProblem" not in (await galley(project, "show", "one", "-o", "json")).out


async def test_a_target_below_the_time_of_a_task_is_told(project: Path) -> None:
    (project / "sums.py").write_text(_HANDLERS + _SLOW)
    queue = (project / "queue.yaml").read_text()
    (project / "queue.yaml").write_text(
        queue.replace("idleSeconds: 0", "idleSeconds: 0, targetWaitSeconds: 1")
    )
    async with dev(project, "queue.yaml"):
        for number in range(6):
            assert (await galley(project, "submit", "sums", "slow", "{}", "--id", f"slow{number}")).code == 0

        async def told() -> bool:
            return (
                "spec.scaling.targetWaitSeconds is 1, below the" in (await galley(project, "why", "sums")).out
            )

        await eventually(told, within=60)


async def test_a_waiting_client_is_told_that_no_worker_knows_a_handler_of_that_name(project: Path) -> None:
    async with dev(project, "queue.yaml"):
        waited = await galley(project, "submit", "sums", "addd", "{}", "--wait", "30")
        assert waited.code == 1
        assert "still waiting: no handler 'addd' in queue 'sums'" in waited.err


async def test_a_record_that_cannot_be_read_does_not_end_it(project: Path) -> None:
    async with dev(project, "queue.yaml") as running:
        found = dev_file.nearest(project)
        assert found is not None
        async with Broker(found[1].server, name="test") as broker:
            for subject in ("galley.result.default.sums.sdk.first", "galley.result.default.sums.odd.x"):
                await broker.nats.request(subject, b'{"state": "done"', timeout=5)
                await broker.nats.publish(subject.replace("result", "done"), b"")
        said = await galley(project, "submit", "sums", "add", '{"a": 4, "b": 4}', "--wait", "60")
        assert said.out == "8\n"
        assert (await galley(project, "get", "tasks")).code == 0
        running.interrupt()
        assert await running.ends() == 0


async def test_apply_says_unchanged_of_nothing_that_differs(project: Path) -> None:
    async with dev(project, "queue.yaml"):
        same = await galley(project, "apply", "-f", "queue.yaml")
        assert (same.code, same.err) == (0, "")
        assert same.out == "taskqueue/sums unchanged\ntask/first unchanged\n"
        changed = _QUEUE.replace("concurrency: 2", "concurrency: 3").replace(
            "idleSeconds: 0", "idleSeconds: 9"
        )
        (project / "changed.yaml").write_text(changed)
        queue = await galley(project, "apply", "-f", "changed.yaml")
        assert (queue.code, queue.out) == (3, "")
        fields = "spec.scaling.idleSeconds, spec.worker.concurrency"
        assert f"changed.yaml declares queue 'sums' otherwise than it is served: {fields}" in queue.err
        assert "stop `galley dev` with Ctrl-C, and start it again with the file" in queue.err
    twice = await galley(project, "dev", "changed.yaml", "--until-done")
    assert twice.code == 0


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("bad.py", "import nothing_there", "bad.py does not import: line 1: ModuleNotFoundError"),
        ("bad.py", "x = (", "bad.py does not import: line 1: SyntaxError"),
        ("nul.py", "x = 1\0", "nul.py does not import: SyntaxError: source code"),
        ("bad.py", "raise SystemExit(0)", "bad.py does not import: line 1: SystemExit"),
        ("bad.py", "x = 1", "bad.py declares no handlers"),
        ("bad.py", "import os; os._exit(7)", "ended the process that imported it (exit code 7)"),
        ("bad-name.py", "", "cannot be imported: 'bad-name' is not the name of a Python module"),
        (
            "bad.py",
            "from galley import task\n@task(queue='No_Label')\ndef f(): ...",
            "line 2: queue name 'No_Label' is not allowed",
        ),
        ("bad.yaml", "kind: TaskQueu", "bad.yaml:1"),
        ("bad.txt", "", "bad.txt is neither a manifest nor a Python file"),
        (
            "bad.yaml",
            _QUEUE.replace("queueName: sums", "queueName: other"),
            "names queue 'other', which no file here declares",
        ),
        (
            "bad.yaml",
            _QUEUE.replace("handler: add", "handler: add, priority: critical"),
            "asks for lane 'critical'",
        ),
    ],
)
async def test_files_that_cannot_be_used_end_in_two_lines(
    tmp_path: Path, name: str, content: str, error: str
) -> None:
    (tmp_path / name).write_text(content)
    said = await run_command(["dev", str(tmp_path / name)], tmp_path, environment())
    assert (said.code, said.out) == (2, "")
    what, hint = said.err.splitlines()
    assert what.startswith("error: ")
    assert error in what
    assert hint.startswith("hint: ")
    assert not (tmp_path / ".galley").exists()


async def test_more_tasks_than_a_queue_takes_end_in_two_lines(project: Path) -> None:
    more = "".join(f"---{_FAILING % number}" for number in range(3))
    small = _QUEUE.replace("spec:\n  worker", "spec:\n  limits: {backlog: 1}\n  worker")
    (project / "queue.yaml").write_text(small + more)
    said = await galley(project, "dev", "queue.yaml")
    assert said.code == 3
    assert said.err.splitlines() == [
        "error: queue 'sums' is full: 1 of 1 tasks (spec.limits.backlog)",
        "hint: wait and submit again, or raise spec.limits.backlog of the TaskQueue",
    ]


async def test_who_finds_it_finds_all_its_queues(project: Path) -> None:
    queue = "apiVersion: galley.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: more-%d}\nspec: %s\n---"
    spec = "{handlers: {commands: [{name: nothing, command: ['true']}]}}"
    wait = _OTHER.partition("---")[2].replace(
        "other, handler: one", "sums, handler: until, input: {path: go}"
    )
    more = "\n".join(queue % (number, spec) for number in range(20))
    (project / "queue.yaml").write_text(f"{more}\n{_QUEUE}\n---{wait}")
    running = asyncio.create_task(galley(project, "dev", "queue.yaml", "--until-done"))
    await eventually(lambda: dev_file.nearest(project) is not None, within=30, why="it can be found")
    found = dev_file.nearest(project)
    assert found is not None
    async with AsyncClient(found[1].server, found[1].namespace) as client:
        for number in range(20):
            assert await client.tasks(f"more-{number}") == []
    (project / "go").touch()
    said = await running
    assert said.code == 0, said.out + said.err


async def test_a_port_in_use_is_said(project: Path) -> None:
    async with dev(project, "queue.yaml"):
        content = dev_file.nearest(project)
        assert content is not None
        port = content[1].server.rpartition(":")[2]
        other = project / "other"
        other.mkdir()
        said = await galley(other, "dev", "../queue.yaml", "--port", port)
        assert said.code == 1
        assert f"cannot listen on port {port}" in said.err


async def test_the_last_example_of_the_help_works(tmp_path: Path) -> None:
    """All tasks of the folder are run by its own README and by that of the repository."""
    folder = tmp_path / "examples" / "folder"
    shutil.copytree(REPOSITORY / "examples" / "folder", folder, ignore=shutil.ignore_patterns("out"))
    few = "---".join((folder / "tasks.yaml").read_text().split("---")[:3])
    (folder / "tasks.yaml").write_text(few)
    said = await galley(tmp_path, *shlex.split(command.examples[-1])[1:])
    assert said.code == 0, said.out + said.err
    assert "3 Succeeded; " in said.out


async def test_a_queue_for_a_cluster_runs_here_and_is_told_what_has_no_effect(project: Path) -> None:
    for_a_cluster = (
        "worker: {image: 'registry.example.com/sums:1', template: {resources: {limits: {cpu: 1}}}, "
    )
    fixed = _QUEUE.replace("worker: {", for_a_cluster).replace("scaling: {", "scaling: {workers: 1, ")
    (project / "queue.yaml").write_text(fixed)
    said = await galley(project, "dev", "queue.yaml", "--until-done")
    assert said.code == 0, said.err
    told = [line for line in (said.out + said.err).splitlines() if "ignored here" in line]
    assert len(told) == 1
    assert told[0].endswith("since they are for a cluster: worker.image, worker.template")


async def test_edited_code_runs_in_new_workers_while_running_tasks_end_with_the_old(project: Path) -> None:
    gate = project / "gate"
    (project / "queue.yaml").write_text(_QUEUE.replace("gracePeriodSeconds: 5", "gracePeriodSeconds: 90"))
    async with dev(project, "queue.yaml") as running:
        held = json.dumps({"path": str(gate)})
        await galley(project, "submit", "sums", "until", held, "--id", "held")
        await has_phase(project, "held", "Running")
        code = (project / "sums.py").read_text()
        (project / "sums.py").write_text(code.replace("a + b", "a * b").replace("released", "new code"))
        await running.says("sums.py changed: workers of sums are replaced; running tasks may finish")
        said = await galley(project, "submit", "sums", "add", '{"a": 5, "b": 5}', "--wait", "50")
        assert said.out == "25\n", said.err
        gate.touch()
        await has_phase(project, "held", "Succeeded")
        ended = json.loads((await galley(project, "show", "held", "-o", "json")).out)
        assert (ended["result"], ended["attempt"]) == ("released", 1)


async def test_edited_code_is_left_alone_if_asked_for(project: Path) -> None:
    async with dev(project, "queue.yaml", "--no-reload") as running:
        await has_phase(project, "first", "Succeeded")
        (project / "sums.py").write_text((project / "sums.py").read_text().replace("a + b", "a * b"))
        # Until this has run, a watch would have looked several times.
        inputs = '{"a": 5, "b": 5}', "--delay", "3", "--wait", "50"
        said = await galley(project, "submit", "sums", "add", *inputs)
        assert said.code == 0, said.err
        assert not running.said("sums.py changed")


async def test_a_changed_task_is_refused_by_apply_and_by_the_next_run(project: Path) -> None:
    changed = _QUEUE.replace("b: 2", "b: 3")
    async with dev(project, "queue.yaml"):
        await has_phase(project, "first", "Succeeded")
        (project / "task.yaml").write_text(changed.partition("---")[2])
        task = await galley(project, "apply", "-f", "task.yaml")
        assert (task.code, task.out) == (3, "")
        assert "has a task 'first' already, with another " in task.err
    (project / "queue.yaml").write_text(changed)
    again = await galley(project, "dev", "queue.yaml")
    assert again.code == 2
    assert "has a task 'first' already" in again.err
    assert again.err.endswith("hint: give the task another name, or forget earlier runs: --fresh\n")
    assert (await galley(project, "dev", "queue.yaml", "--until-done", "--fresh")).code == 0


async def test_a_manifest_that_changes_takes_effect(project: Path) -> None:
    manifest = project / "queue.yaml"
    manifest.write_text(_QUEUE.replace("spec:\n  worker", "spec:\n  paused: true\n  worker", 1))
    async with dev(project, "queue.yaml") as running:
        await running.says("serving sums")
        await has_phase(project, "first", "Queued")
        assert "spec.paused is true" in (await galley(project, "show", "first")).out
        manifest.write_text("spec: [")
        await running.says("changed, and is not used")
        assert await phase_of(project, "first") == "Queued"
        manifest.write_text(_QUEUE.replace("concurrency: 2", "concurrency: 1"))
        await running.says("sums taken over")
        told = await galley(project, "result", "first", "--within", "60")
        assert (told.code, told.out) == (0, "3\n"), running.lines
        manifest.write_text(_QUEUE.replace("spec:\n  worker", "spec:\n  lanes: [normal, low]\n  worker", 1))
        await running.says("changed lanes or encryption of sums: start `galley dev` again to use it")
