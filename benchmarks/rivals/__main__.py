"""Compare Galley with other task queues: `python -m benchmarks.rivals`; `--quick` for those without a server.

Each waits with a backlog before its one worker is started. Then the worker is killed in the middle of a
second backlog and started again, and the results that never come are counted.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rivals.page import Result, page
from benchmarks.rivals.servers import install, kill, serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACES = Path(os.environ.get("GALLEY_CACHE", Path.home() / ".cache" / "galley")) / "rivals"
_PATIENCE_SECONDS = 45
"""After so long without a result there will be no more."""


@dataclass(frozen=True)
class Rival:
    """One queue and how it is set up."""

    title: str
    module: str
    packages: tuple[str, ...]
    servers: tuple[str, ...] = ()
    runs_handlers: bool = True
    """Whether a task that takes its time can be killed in it."""


RIVALS = (
    Rival("Galley, NATS", "galley_nats", (), ("nats",)),
    Rival("a raw nats-py loop without handlers", "raw_nats", (), ("nats",), runs_handlers=False),
    Rival("Huey, 4 processes, SQLite", "huey_sqlite", ("huey==3.5.4",)),
    Rival("Huey, 4 processes, Redis", "huey_redis", ("huey==3.5.4", "redis==8.1.0"), ("redis",)),
    Rival("Dramatiq, 2 x 8, Redis", "dramatiq_redis", ("dramatiq[redis]==2.2.1",), ("redis",)),
    Rival("Dramatiq, 2 x 8, RabbitMQ and Redis", "dramatiq_rabbitmq", ("dramatiq[rabbitmq,redis]==2.2.1",),
          ("rabbitmq", "redis")),
    Rival("Celery, 4 processes, Redis", "celery_redis", ("celery[redis]==5.7.0",), ("redis",)),
    Rival("RQ, 4 workers, Redis", "rq_redis", ("rq==3.0.0",), ("redis",)),
    Rival("arq, 1 process, Redis", "arq_redis", ("arq==0.28.0",), ("redis",)),
    Rival("taskiq, 2 processes, Redis streams", "taskiq_redis_streams", ("taskiq==0.13.0", "taskiq-redis==1.2.4"),
          ("redis",)),
    Rival("taskiq, 2 processes, NATS", "taskiq_jetstream", ("taskiq==0.13.0", "taskiq-nats==0.7.0"), ("nats",)),
    Rival("procrastinate, 1 process, PostgreSQL", "procrastinate_postgres",
          ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"), ("postgres",)),
)  # fmt: skip


class Set:
    """One rival with a fresh store. Its commands are those of `adapters/adapter.py`."""

    def __init__(
        self, rival: Rival, python: Path, store: str, folder: Path, servers: tuple[int, ...]
    ) -> None:
        self.rival, self.folder, self.servers = rival, folder, servers
        # Imported, not run as a script: tasks are known by the name of their module.
        self._command = [str(python), "-c", f"import {rival.module}; {rival.module}.run()"]
        self._environment = {**os.environ, "RIVAL_STORE": store, "RIVAL_FOLDER": str(folder)}
        ours = () if rival.packages else (str(ROOT),)
        self._environment["PYTHONPATH"] = os.pathsep.join((str(HERE / "adapters"), *ours))

    def tell(self, *words: object, within: float = 600.0) -> dict[str, Any]:
        """Run a command of the adapter and return what it printed."""
        done = subprocess.run(
            [*self._command, *map(str, words)], env=self._environment, cwd=HERE / "adapters", timeout=within,
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def servers_used(self) -> float:
        """Return the processor seconds of its servers."""
        return sum(used(psutil.Process(pid)) for pid in self.servers)

    @contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        """Run the worker; it is killed with all its processes."""
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._command, "worker"], env=self._environment, cwd=HERE / "adapters",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield psutil.Process(process.pid)
        finally:
            kill(process)


def used(process: psutil.Process) -> float:
    """Return the processor seconds of a process and its descendants."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@contextmanager
def fresh(rival: Rival) -> Iterator[Set]:
    """Give a rival its environment, an empty store, and its servers."""
    python = Path(sys.executable) if not rival.packages else environment(rival)
    with tempfile.TemporaryDirectory(prefix="galley-rivals-") as name:
        folder = Path(name)
        with serving(rival.servers, folder) as servers:
            yield Set(rival, python, servers.store, folder, servers.pids)


def environment(rival: Rival) -> Path:
    """Return the Python of a rival's environment, which is made at the first use, for all clones."""
    version = ".".join(map(str, sys.version_info[:3]))
    # Dramatiq looks for its scripts with a pattern made of its own place, so no `dramatiq[redis]` in that.
    place = PLACES / re.sub(r"[^\w.=-]", "_", "-".join((rival.module, version, *rival.packages)))
    python, stamp = place / "bin" / "python", place / ".made"
    PLACES.mkdir(parents=True, exist_ok=True)
    with (PLACES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and python.exists()):
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python)]
            subprocess.run([*pip, "install", "--quiet", *rival.packages], check=True)
            stamp.touch()
    return python


def drain(rival: Rival, tasks: int) -> Result:
    """Measure a backlog that waits before its worker."""
    with fresh(rival) as ready:
        submitted = ready.tell("submit", tasks, 0)["seconds"]
        before = ready.servers_used()
        with ready.worker() as worker:
            seen = ready.tell("watch", tasks, _PATIENCE_SECONDS)
            cpu = used(worker)
        after = ready.servers_used()
    rate = (seen["count"] - seen["first"]) / max(0.001, seen["last_at"] - seen["first_at"])
    return Result(
        rival.title, rate, tasks / submitted, cpu / tasks * 1e6, (after - before) / tasks * 1e6,
        tasks - int(seen["count"]),
    )  # fmt: skip


def lost(rival: Rival, tasks: int) -> int:
    """Kill the worker in the middle, start it again, and return how many results never come."""
    with fresh(rival) as ready:
        ready.tell("submit", tasks, 0.01)
        with ready.worker():
            ready.tell("watch", tasks // 10, _PATIENCE_SECONDS)
        with ready.worker():
            return tasks - int(ready.tell("watch", tasks, _PATIENCE_SECONDS)["count"])


def main() -> int:
    """Measure all, print the table, and write the page unless it was a quick run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few tasks, and only those without a server")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of adapters")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    # What it started must not outlive it when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    tasks, rounds, killed = (200, 1, 0) if options.quick else (options.tasks, options.rounds, 400)
    # A quick run installs little: it leaves out what needs a server and is not ours.
    chosen = [
        each
        for each in RIVALS
        if (not options.quick or not each.servers or not each.packages)
        and (not options.only or each.module in options.only)
    ]
    install(sorted({kind for each in chosen for kind in each.servers}))
    load = os.getloadavg()[0]
    runs: dict[str, list[Result]] = {each.title: [] for each in chosen}
    for _ in range(rounds):
        for rival in chosen:
            runs[rival.title].append(drain(rival, tasks))
            print(runs[rival.title][-1].text(), flush=True)
    missing = (
        {} if options.quick else {rival.title: lost(rival, killed) for rival in chosen if rival.runs_handlers}
    )
    for title, count in missing.items():
        print(f"{title}: {count} of {killed} results missing after kill -9 of its worker", flush=True)
    if not options.quick:
        versions = {each.title: ", ".join(each.packages) or "this repository" for each in chosen}
        options.page.write_text(page(runs, missing, versions, tasks, killed, load))
    complete = all(each.left == 0 for of in runs.values() for each in of)
    return 0 if complete and not missing.get(RIVALS[0].title) else 1


if __name__ == "__main__":
    sys.exit(main())
