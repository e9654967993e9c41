"""The node is drained: workers go one at a time, finish or hand back what they do; it costs no attempt."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from e2e import waits
from e2e.marks import Marks, drills, notes
from e2e.place import Object, Place
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

SLOTS = 2
WORKERS = 2
LONG, SHORT = WORKERS * SLOTS, 12


@pytest.fixture
def node(kubectl: Kubectl) -> Iterator[str]:
    """The only node; after the test it takes pods again."""
    [node] = kubectl.get("nodes")["items"]
    name = str(node["metadata"]["name"])
    yield name
    kubectl("uncordon", name)


def test_a_drained_node_costs_no_attempt(kubectl: Kubectl, node: str, place: Place, marks: Marks) -> None:
    worker = {"concurrency": SLOTS, "gracePeriodSeconds": 4}
    place.apply(*drills(worker=worker, scaling={"minWorkers": WORKERS}))
    before = {name_of(pod) for pod in place.ready_workers(WORKERS)}
    place.apply(*notes(LONG, seconds=12, prefix="long", priority="high"))
    marks.until_began(LONG)
    place.apply(*notes(SHORT, seconds=0.5, prefix="short", priority="low"))
    with ThreadPoolExecutor(1) as beside:
        draining = beside.submit(drain, kubectl, node)
        place.until(
            "a worker that finds no node",
            lambda: [pod for pod in place.workers() if pod["status"]["phase"] == "Pending"],
            within=waits.WORKER_READY,
        )
        # Its budget lets the second one go when another has taken the place of the first.
        assert_works_on(place, before, draining)
        kubectl("uncordon", node)
        draining.result(timeout=waits.ROLLED_OUT)
    tasks = place.all_in("Succeeded", LONG + SHORT)
    assert {task["status"]["attempts"] for task in tasks} == {1}
    began = marks.began()
    short = {name: count for name, count in began.items() if name.startswith("short")}
    assert short == {
        f"short{number:03}": 1 for number in range(SHORT)
    }  # finished by the workers that had begun them
    assert began.total() - SHORT >= LONG + SLOTS  # those of the first worker were handed back, at least
    place.until(
        "other workers",
        lambda: before.isdisjoint(map(name_of, place.workers())),
        within=waits.WORKERS_GONE,
    )


def assert_works_on(place: Place, before: set[str], draining: "Future[str]") -> None:
    ready = {name_of(pod) for pod in place.workers(ready=True)}
    assert len(ready & before) == 1, place.told()
    assert not draining.done()


def drain(kubectl: Kubectl, node: str) -> str:
    return kubectl(
        *("drain", node, "--pod-selector=app.kubernetes.io/name=galley-worker"),
        *("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={waits.ROLLED_OUT:g}s"),
        within=waits.ROLLED_OUT + 10,
    )


def name_of(pod: Object) -> str:
    return str(pod["metadata"]["name"])
