"""An exception in any callback of the operator costs one Task, queue or look, and the operator goes on.

A callback is a method that is handed to another part (found in the code, so that a new one is tried as well),
or one by which a part hears of changes. In each in turn an exception is raised the first time it is called.
"""

import ast
import asyncio
import importlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

import galley_operator
from galley.broker.connection import Broker
from galley.broker.publish import Publisher
from galley_operator.cluster.resource import DEPLOYMENTS, PODS, TASKS
from galley_operator.fleet.names import selected_by
from tests.support.eventually import eventually
from tests.support.memory_nats.client import MemoryClient
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import desk
from tests.unit.galley_operator.queues.test_queues import stage
from tests.unit.galley_operator.test_data_path import LATER, applied_by_a_client

ROOT: Final = Path(galley_operator.__file__).parent
HEARING: Final = ({"changed", "gone"}, {"new", "gone"})
"""What classes have by which a part hears of changes (see the protocols `Listener` and `TaskListener`)."""

OF_THE_PROCESS: Final = {
    "Operator.": "the process itself; test_leadership.py, e2e/test_operator_killed.py",
    "Serving.": "runs within keep_running, and each namespace apart; test_serving.py",
    "Scope.": "runs within keep_running of its namespace; test_serving.py",
    "Views.": "runs within keep_running; test_serving.py",
    "BrokerAccess.": "before the process leads: it ends, and is started again",
    "Leadership.": "a replica that cannot lead ends; tests/unit/galley_operator/test_leadership_errors.py",
    "QueueWatch.": "kopf's watch; tests/unit/galley_operator/test_handlers.py",
    "CertificateKeeper.": "runs within keep_running; its own tests",
    "BackupSecret.": "runs within keep_running; its own tests",
    "LoopWatch.": "measures the loop; without it /livez fails and the process is started again",
    "OperatorMetrics.": "of a page: the request fails, tests/unit/galley_operator/test_health.py",
    "Health.": "of a page: the request fails, tests/unit/galley_operator/test_health.py",
    "Redrives.": "of a Task that failed, which the desk here has none of; intake/test_redrives.py",
    "TopicsKeeper.": "runs within keep_running, and each topic apart; topics/test_topics_keeper.py",
    "WorkflowKeeper.": "runs within keep_running, and each workflow apart; workflows/test_workflow_keeper.py",
    "ScheduleKeeper.": "runs within keep_running, and each schedule apart; schedules/test_keeper.py",
    "WorkerEnds.": "runs within keep_running; fleet/test_workloads.py",
    "AuditTrail.": "runs within keep_running; tests/integration/credentials/test_audit.py",
    "CountKeeper.": "runs within keep_running; test_figures.py",
    "StreamCollector.": "runs within keep_running; e2e/api/test_queues_collected.py",
    "Authority.": "within the look at its queue; tests/integration/credentials/test_accounts.py",
    "DataPath._follow": "the desk has streams of its own; what they hand on is RecordStreams._react",
    "DataPath._known": "within the reading of one record; test_hostile_objects.py",
    "Queues.supply": "within the answer to one question of a client",
    "Workloads.end_of": "within the report of one record, as StatusKeeper.heard is",
    "DeploymentFleet.": "within keep_running of its queue's scaling; test_deployment_fleet.py",
}
"""Callbacks that are not tried here, by how their names begin, and why."""


@cache
def methods() -> dict[str, set[tuple[str, str]]]:
    """Return the methods of the operator by name: the modules and classes that have one."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for module, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and "Protocol" not in ast.unparse(node).partition("\n")[0]:
                for each in node.body:
                    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.decorator_list:
                        found[each.name].add((module, node.name))
    return found


@cache
def trees() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(
        (
            ".".join(("galley_operator", *path.relative_to(ROOT).with_suffix("").parts)),
            ast.parse(path.read_text()),
        )
        for path in sorted(ROOT.rglob("*.py"))
    )


def callbacks(*, certain: bool = False) -> dict[str, tuple[str, str, str]]:
    """Return the callbacks by what they are called: module, class and method.

    Args:
        certain: leave out methods of which only the name is handed on, so that it may be another's.
    """
    known = methods()
    by_class: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, places in known.items():
        for place in places:
            by_class[place].add(name)
    found = {(*place, "run") for place, names in by_class.items() if "run" in names}
    for hearing in HEARING:
        found |= {(*place, each) for place, names in by_class.items() if hearing <= names for each in hearing}
    for module, owner, part in handed_on():
        if not certain or ast.unparse(part.value) == "self":
            found |= _meant(part, module, owner, known)
    return {f"{owner}.{name}": (module, owner, name) for module, owner, name in sorted(found)}


@cache
def handed_on() -> tuple[tuple[str, str, ast.Attribute], ...]:
    """Return the attributes that are arguments of a call, and the module and class where that is."""
    return tuple(_handed_on())


def _handed_on() -> Iterator[tuple[str, str, ast.Attribute]]:
    for module, tree in trees():
        for holder in [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
            for call in [node for node in ast.walk(holder) if isinstance(node, ast.Call)]:
                handed = [*call.args, *(each.value for each in call.keywords)]
                for part in [part for each in handed for part in getattr(each, "elts", [each])]:
                    if isinstance(part, ast.Attribute):
                        yield module, holder.name, part


def _meant(
    part: ast.Attribute, module: str, owner: str, known: dict[str, set[tuple[str, str]]]
) -> set[tuple[str, str, str]]:
    """Return the method an attribute is: of the class itself, or the only one that is so called."""
    places = known.get(part.attr, set())
    if isinstance(part.value, ast.Name) and part.value.id == "self":
        return {(module, owner, part.attr)} if (module, owner) in places else set()
    # An attribute of another object may only have the name of a method: then nothing calls it.
    return {(*place, part.attr) for place in places} if len(places) == 1 else set()


ALL: Final = callbacks()
CERTAIN: Final = callbacks(certain=True)
TRIED: Final = sorted(name for name in ALL if not name.startswith(tuple(OF_THE_PROCESS)))


class Raising:
    """A method that raises once, and then does what it is there for."""

    def __init__(self, original: Any) -> None:
        self.times = 0
        self.original = original

    def once(self) -> None:
        self.times += 1
        if self.times == 1:
            raise RuntimeError("raised by a test")

    @property
    def method(self) -> Any:
        if inspect.iscoroutinefunction(self.original):

            async def raising_later(*args: Any, **named: Any) -> Any:
                self.once()
                return await self.original(*args, **named)

            return raising_later

        def raising(*args: Any, **named: Any) -> Any:
            self.once()
            return self.original(*args, **named)

        return raising


def told(change: Callable[..., Any], *args: Any, **named: Any) -> None:
    """Have kopf's handler tell of a change: it catches what is raised."""
    with suppress(RuntimeError):
        change(*args, **named)


def cut(broker: Broker) -> None:
    """Lose the connection to the broker."""
    assert isinstance(broker.nats, MemoryClient)
    broker.nats.cut()


async def use_of_tasks() -> None:
    """Have all happen that happens to Tasks; the last of them must be served in full."""
    async with desk(resync_seconds=30.0, sweep_seconds=30.0, expiry_seconds=10.0, task_ttl_seconds=60) as it:
        told(it.queue)
        await applied_by_a_client(it, "adopted")
        await it.end("adopted", digest=it.envelope("adopted").digest)
        it.api.task("adopted", created=LATER)
        left = replace(it.envelope("left"), uid="uid-of-one-that-is-gone")
        await Publisher(it.broker).publish(it.address("left"), left, chosen_id=True)
        it.api.task("first")
        it.api.task("orphan")
        await asyncio.sleep(5)
        it.api.remove(TASKS, "orphan")
        it.api.cut()
        told(it.queue, "other")
        cut(it.broker)
        await asyncio.sleep(200)
        it.api.task("second")
        await asyncio.sleep(100)
        uid = it.api.task("last")["metadata"]["uid"]
        await it.until("last", "Queued", "Unknown", "Queued", within=1_500)
        await it.end("last", uid=uid)
        await eventually(lambda: it.api.status("last").get("phase") == "Succeeded", within=1_500)
        it.path.expiry._clock = it.server.now
        await eventually(lambda: (TASKS.plural, "default", "last") not in it.api.objects, within=1_500)


async def use_of_queues() -> None:
    """Have all happen that happens to TaskQueues; the last of them must be served in full."""
    async with stage() as it:
        told(it.apply)
        await asyncio.sleep(30)
        labels = selected_by("images")
        it.api.put(PODS, {"metadata": {"namespace": "default", "name": "w1", "labels": labels}})
        told(it.apply, scaling={"workers": 2})
        cut(it.queues._broker)
        await asyncio.sleep(30)
        it.api.remove(PODS, "w1")
        it.api.remove(DEPLOYMENTS, "galley-images")
        await asyncio.sleep(30)
        told(it.apply, "last")
        await eventually(lambda: it.ready("last") == ("True", "Serving"), within=1_500)
        await eventually(lambda: it.ready()[0] != "", within=1_500)


@pytest.mark.parametrize("name", TRIED)
def test_an_exception_in_a_callback_costs_no_more_than_it_must(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, owner, method = ALL[name]
    cls = getattr(importlib.import_module(module), owner)
    raising = Raising(cls.__dict__[method])
    monkeypatch.setattr(cls, method, raising.method)
    in_virtual_time(use_of_tasks)()
    if not raising.times:
        in_virtual_time(use_of_queues)()
    if name in CERTAIN:
        assert raising.times, (
            f"nothing called {name}: try it here, or say in OF_THE_PROCESS where it is tried"
        )


def test_what_is_not_tried_here_is_there() -> None:
    assert len(TRIED) > 20
    for start in OF_THE_PROCESS:
        assert any(name.startswith(start) for name in ALL), f"{start} is not needed any more"
