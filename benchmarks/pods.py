"""Measure how long a task waits for its first worker in a cluster: `python -m benchmarks.pods`.

A queue has no worker; a Task is declared, and its handler tells when its container's process began and when
it was called itself. Several images of the worker are measured in turns: archives that `testcluster images
galley-worker` printed in as many checkouts. Needs root, and the programs that `make e2e/build` makes.
"""

import argparse
import asyncio
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, Final

from e2e.release import WITHOUT_A_REGISTRY, Release
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import DEPLOYMENTS, PODS, TASKS, Resource
from testcluster.bare import BareCluster
from testcluster.images.build import archives
from testcluster.images.image import OPERATOR, WORKER
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

_NAMESPACE: Final = "bench"
_HOPS: Final = (
    "replicas patched", "pod made", "scheduled", "container runs", "python", "handler", "status written"
)  # fmt: skip
_IDLE_SECONDS: Final = 2
_CODE: Final = """
import time
from pathlib import Path
from galley import task

def fields(process: str) -> list[str]:
    return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()

@task(queue="start")
def when() -> dict[str, float]:
    called = time.time()
    python = called - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields("1")[19]) / 100
    all_of_them = [fields(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    processor = sum(int(each[11]) + int(each[12]) for each in all_of_them) / 100
    return {"python": python, "handler": called, "processor": processor}
"""


def _tagged(archive: Path, reference: str, folder: Path) -> Path:
    """Return a copy of an archive whose image has another name."""
    made = folder / f"{reference.rpartition(':')[2]}.tar"
    with tarfile.open(archive) as old, tarfile.open(made, "w") as new:
        for member in old:
            content = old.extractfile(member) if member.isfile() else None
            if member.name == "manifest.json" and content is not None:
                manifest = json.load(content)
                manifest[0]["RepoTags"] = [reference]
                data = json.dumps(manifest).encode()
                member.size, content = len(data), BytesIO(data)
            new.addfile(member, content)
    return made


def _queue(image: str) -> dict[str, Any]:
    worker = {"image": image, "code": {"configMapName": "start"}, "modules": ["start"]}
    scaling = {"maxWorkers": 1, "idleSeconds": _IDLE_SECONDS}
    return {
        "apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue",
        "metadata": {"name": "start"}, "spec": {"worker": worker, "scaling": scaling},
    }  # fmt: skip


def _task(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1", "kind": "Task",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": {"queueName": "start", "handler": "when", "input": {}},
    }  # fmt: skip


def _of_deployment(each: dict[str, Any]) -> str:
    return "replicas patched" if each["spec"].get("replicas") else ""


def _of_pod(each: dict[str, Any]) -> str:
    if any(one.get("state", {}).get("running") for one in each["status"].get("containerStatuses", ())):
        return "container runs"
    return "scheduled" if each["spec"].get("nodeName") else "pod made"


def _of_task(each: dict[str, Any]) -> str:
    return "status written" if each.get("status", {}).get("phase") == "Succeeded" else ""


async def _follow(
    client: Cluster, resource: Resource, hop: Callable[[dict[str, Any]], str], seen: dict[str, float]
) -> None:
    """Note when the first object that has come to a hop was heard of."""
    async for event in client.watch(resource, _NAMESPACE):
        each = event.object or {}
        if each.get("metadata", {}).get("name", "").startswith(("galley-start", "t")) and (name := hop(each)):
            seen.setdefault(name, time.time())


async def start(client: Cluster, kubectl: Kubectl, image: str, name: str) -> dict[str, float]:
    """Run one task from no worker; return the seconds from its making to each hop."""
    kubectl.apply(_queue(image), namespace=_NAMESPACE)

    def idle() -> bool:
        pods = kubectl.get("pods", "-n", _NAMESPACE)["items"]
        found = kubectl.get("taskqueue", "start", "-n", _NAMESPACE)
        status = found.get("status", {})
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return not pods and current

    await eventually(idle, within=120, why="no worker")
    await asyncio.sleep(2)
    seen: dict[str, float] = {}
    following = [
        asyncio.create_task(_follow(client, *each, seen))
        for each in ((DEPLOYMENTS, _of_deployment), (PODS, _of_pod), (TASKS, _of_task))
    ]
    try:
        await asyncio.sleep(1)
        seen.clear()
        began = time.time()
        await client.create(TASKS, _task(name))
        await eventually(lambda: "status written" in seen, within=120, why="the task is done")
        made = await client.get(TASKS, _NAMESPACE, name)
    finally:
        for each in following:
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each
    result = made["status"]["result"]
    processor = result.pop("processor")
    return {hop: at - began for hop, at in {**seen, **result}.items()} | {"processor": processor}


async def measure(images: list[Path], turns: int, operator: Path | None) -> dict[int, list[dict[str, float]]]:
    """Start a worker of each image in turns; the first of each is not counted."""
    found: dict[int, list[dict[str, float]]] = {number: [] for number in range(len(images))}
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as name:
        folder = Path(name)
        cluster = BareCluster(folder / "state")
        cluster.up()
        try:
            for archive in archives(["nats"] if operator else ["nats", OPERATOR.name]).values():
                cluster.load_image(archive)
            if operator:
                cluster.load_image(operator)
            names = [f"{WORKER.reference.rpartition(':')[0]}:turn{number}" for number in found]
            for archive, reference in zip(images, names, strict=True):
                cluster.load_image(_tagged(archive, reference, folder))
            Release(cluster, settings={**WITHOUT_A_REGISTRY, "gateway.enabled": "false"}).install()
            kubectl = Kubectl(cluster)
            kubectl("create", "namespace", _NAMESPACE)
            (folder / "start.py").write_text(_CODE)
            kubectl("create", "configmap", "start", "-n", _NAMESPACE, f"--from-file={folder / 'start.py'}")
            async with Cluster(load_config(cluster.kubeconfig)) as client:
                for turn in range(turns + 1):
                    for number, reference in enumerate(names):
                        one = await start(client, kubectl, reference, f"t{turn}-{number}")
                        print(number, {hop: round(at, 2) for hop, at in one.items()}, flush=True)
                        if turn:
                            found[number].append(one)
        finally:
            cluster.down()
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pods", description=__doc__)
    parser.add_argument("images", type=Path, nargs="*", metavar="ARCHIVE", help="of a worker; default: ours")
    parser.add_argument("--operator", type=Path, metavar="ARCHIVE", help="of the operator; default: ours")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    images = options.images or [archives([WORKER.name])[WORKER.name]]
    found = asyncio.run(measure(images, options.turns, options.operator))
    print(f"Load average {os.getloadavg()[0]:.1f}; seconds since the Task was made, and in our process.")
    for image, starts in zip(images, found.values(), strict=True):
        hops = (f"{hop} {median(one[hop] for one in starts if hop in one):.2f}" for hop in _HOPS)
        ours = sorted(one["handler"] - one["python"] for one in starts)
        process = f"in our process {median(ours):.2f} ({ours[0]:.2f} to {ours[-1]:.2f})"
        processor = median(one["processor"] for one in starts)
        print(f"{image.stem}: {', '.join(hops)}; {process}, processor time {processor:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
