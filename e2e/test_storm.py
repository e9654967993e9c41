"""300 tasks in three lanes, and kill -9 of operator, workers and NATS in their midst: each ends once.

`GALLEY_STORM_SEED` is its course: who is killed, and when.
"""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from e2e import container, waits
from e2e.marks import Marks, drills, notes
from e2e.place import Object, Place, is_ready
from e2e.release import Release
from testcluster.cluster import Cluster

pytestmark = pytest.mark.timeout(900)

SEED: Final = int(os.environ.get("GALLEY_STORM_SEED", "1"))
TASKS: Final = 300
KILLS: Final = 6
WORKERS: Final = 3
SLOTS: Final = 4


@dataclass
class Storm:
    """Kills one after the other."""

    cluster: Cluster
    place: Place
    release: str
    killed: list[str] = field(default_factory=list)
    at: list[str] = field(default_factory=list)

    def course(self) -> list[tuple[int, str]]:
        """Return how many tasks have begun when whom is killed: each once, then any."""
        dice = random.Random(SEED)
        victims = ["operator", "worker", "nats"]
        victims += dice.choices(victims, k=KILLS - len(victims))
        dice.shuffle(victims)
        return list(zip(sorted(dice.sample(range(10, TASKS - 30), KILLS)), victims, strict=True))

    def strike(self, victim: str) -> None:
        """Kill one as soon as it runs; who is killed again would be kept down, so its pod is made again."""
        namespace = self.place.namespace if victim == "worker" else self.release
        words = ("-n", namespace, "-l", f"app.kubernetes.io/name=galley-{victim}")

        def running() -> list[Object]:
            pods = self.place.kubectl.get("pods", *words)["items"]
            return [pod for pod in pods if is_ready(pod)]

        pod = self.place.until(f"a ready {victim}", running, within=waits.POD_READY)[0]
        name = pod["metadata"]["name"]
        container.kill(self.cluster, self.place.kubectl, namespace, name)
        self.killed.append(victim)
        self.at.append(f"{datetime.now(UTC):%H:%M:%S} {name}")
        if pod["status"]["containerStatuses"][0]["restartCount"]:
            self.place.kubectl("delete", "pod", "-n", namespace, name, "--force", "--grace-period=0")


@contextmanager
def every_status(cluster: Cluster, namespace: str, file: Path) -> Iterator[None]:
    """Note each status the Tasks of a namespace ever have, one in a line; the first column is the name.

    The API server ends a watch now and then, and kubectl with it: the next one begins with all there are.
    """
    parts = ("metadata.name", "status.phase", "status.attempts", "status.result.run", "status.error.message")
    line = "|".join(f"{{.{part}}}" for part in parts) + '{"\\n"}'
    words = ("get", "tasks", "-n", namespace, "--watch", "-o", f"jsonpath={line}")
    again = ["bash", "-c", 'while "$@"; do :; done', "watch", str(cluster.tool("kubectl")), *words]
    environment = {**os.environ, **cluster.environment}
    with (
        file.open("a") as out,
        subprocess.Popen(again, env=environment, stdout=out, start_new_session=True) as watch,
    ):
        try:
            yield
        finally:
            failed = watch.poll()
            with suppress(ProcessLookupError):
                os.killpg(watch.pid, signal.SIGKILL)
            assert failed is None, "a watch failed"


def test_every_task_has_one_outcome_after_a_storm(
    galley: Release, cluster: Cluster, place: Place, marks: Marks, tmp_path: Path
) -> None:
    place.apply(
        *drills(worker={"concurrency": SLOTS}, scaling={"maxWorkers": WORKERS}, retry={"crashes": 20})
    )
    storm = Storm(cluster, place, galley.namespace)
    with every_status(cluster, place.namespace, tmp_path / "statuses"):
        place.apply(*notes(TASKS, seconds=0.4))
        for began, victim in storm.course():
            marks.until_began(began)
            storm.strike(victim)
        tasks = place.all_in("Succeeded", TASKS, within=waits.STORM_OVER)
        place.kubectl(
            "wait", "-n", place.namespace, "--for=condition=Succeeded", "task", "--all", "--timeout=60s"
        )
    statuses = (tmp_path / "statuses").read_text().splitlines()
    told(storm, tasks, statuses, marks)
    one_outcome_each(tasks, statuses)
    runs_are_accounted_for(storm, tasks, marks)
    why_so_many_workers(place)


def told(storm: Storm, tasks: list[Object], statuses: list[str], marks: Marks) -> None:
    """Print what happened, and all there is about what ran again."""
    attempts = Counter(task["status"]["attempts"] for task in tasks)
    again = {word for word, count in marks.began().items() if count > 1}
    sys.stdout.write(
        f"\nseed {SEED}: {TASKS} tasks, killed {list(zip(storm.course(), storm.at, strict=True))}\n"
        f"outcomes: {len(tasks)} Succeeded; attempts: {dict(attempts)}; ran again: {len(again)}\n"
        f"{marks.told(again)}\n"
    )
    for line in statuses:
        if line.split("|")[0] in again:
            sys.stdout.write(f"  {line}\n")


def one_outcome_each(tasks: list[Object], statuses: list[str]) -> None:
    """What a Task said once it had ended, it went on to say."""
    said: dict[str, set[str]] = {task["metadata"]["name"]: set() for task in tasks}
    for line in statuses:
        name, _, rest = line.partition("|")
        if said[name] or rest.startswith(("Succeeded", "Failed", "Cancelled")):
            said[name].add(rest)
    assert {name: len(each) for name, each in said.items() if len(each) != 1} == {}


def runs_are_accounted_for(storm: Storm, tasks: list[Object], marks: Marks) -> None:
    """The result is that of a run that came to its end; only what was under way at a kill ran again."""
    runs = marks.ended()
    results = {task["metadata"]["name"]: task["status"]["result"]["run"] for task in tasks}
    assert {word: run for word, run in results.items() if run not in runs[word]} == {}
    # Beside those a worker runs there may be as many that have run and are about to say so. And NATS forgets
    # when it is killed whom it gave the last tasks: another worker may run them, and the first word counts.
    held_at_most = 2 * SLOTS * storm.killed.count("worker") + WORKERS * SLOTS * storm.killed.count("nats")
    began = marks.began()
    again = {word: count for word, count in began.items() if count > 1}
    assert began.total() - TASKS <= held_at_most, again
    assert {task["status"]["attempts"] for task in tasks} == {
        1
    }  # nothing that was killed is the task's fault


def why_so_many_workers(place: Place) -> None:
    described = place.kubectl("describe", "taskqueue", "drills", "-n", place.namespace)
    reason = place.until("a reason", lambda: place.queue().get("scalingReason"), within=waits.CONDITION_SAID)
    sys.stdout.write(f"at the end: {reason}\n")
    for line in described.splitlines():
        if "Scaled" in line:
            sys.stdout.write(f"{line.strip()}\n")
    assert "Scaling Reason:" in described
    assert "from 0 to" in described
