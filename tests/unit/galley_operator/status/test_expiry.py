from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from galley.address import TaskAddress
from galley_operator.cluster.errors import ClusterUnreachable, NotAdmitted
from galley_operator.cluster.resource import TASKS
from galley_operator.status.expiry import Expiry, FinishedTask, KeptSeconds, expires_at
from tests.support.memory_cluster import MemoryCluster

KEEP = KeptSeconds()
ENDED = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def a_finished_task(
    ttl: int | None = None, ended: datetime | None = ENDED, phase: str = "Succeeded", **metadata: Any
) -> FinishedTask:
    body: dict[str, Any] = {"metadata": {"name": "one", "namespace": "images", "uid": "u1", **metadata}}
    if ttl is not None:
        body["spec"] = {"ttlSecondsAfterFinished": ttl}
    if ended is not None:
        body["status"] = {"completionTime": ended, "phase": phase}
    return msgspec.convert(msgspec.to_builtins(body), FinishedTask, strict=False)


def test_a_task_goes_when_its_own_time_is_over() -> None:
    assert expires_at(a_finished_task(60), KEEP) == ENDED + timedelta(seconds=60)
    assert expires_at(a_finished_task(0), KeptSeconds(3600, 3600)) == ENDED


def test_a_task_that_says_nothing_goes_by_the_default_or_stays() -> None:
    assert expires_at(a_finished_task(), KeptSeconds(60, 60)) == ENDED + timedelta(seconds=60)
    assert expires_at(a_finished_task(), KEEP) is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"app.kubernetes.io/instance": "thumbs"}},
        {"labels": {"argocd.argoproj.io/instance": "thumbs"}},
        {"labels": {"kustomize.toolkit.fluxcd.io/name": "thumbs"}},
        {"labels": {"helm.toolkit.fluxcd.io/name": "thumbs"}},
        {"annotations": {"argocd.argoproj.io/tracking-id": "thumbs:galley.dev/Task:images/one"}},
        {"annotations": {"meta.helm.sh/release-name": "thumbs"}},
    ],
)
def test_a_task_that_would_come_back_and_run_again_stays_unless_it_says_otherwise(metadata: Any) -> None:
    assert expires_at(a_finished_task(**metadata), KeptSeconds(60, 60)) is None
    assert expires_at(a_finished_task(60, **metadata), KEEP) is not None


def test_a_task_that_does_not_say_when_it_ended_stays() -> None:
    assert expires_at(a_finished_task(60, ended=None), KeptSeconds(60, 60)) is None


@pytest.mark.parametrize(("phase", "seconds"), [("Succeeded", 60), ("Cancelled", 60), ("Failed", 3600)])
def test_a_failed_task_has_a_default_of_its_own(phase: str, seconds: int) -> None:
    kept = KeptSeconds(60, 3600)
    assert expires_at(a_finished_task(phase=phase), kept) == ENDED + timedelta(seconds=seconds)
    assert expires_at(a_finished_task(5, phase=phase), kept) == ENDED + timedelta(seconds=5)


class Looking:
    """One look at a cluster on which a Task ended an hour ago."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.remembered: list[tuple[str, str, bool]] = []
        """Id and uid, and whether the Task was still there."""
        self.make("u1")

    def make(self, uid: str) -> None:
        metadata = {"name": "one", "namespace": "images", "uid": uid}
        status = {"phase": "Succeeded", "completionTime": "2026-03-01T08:30:00Z"}
        self.cluster.put(TASKS, {"metadata": metadata, "spec": {"queueName": "images"}, "status": status})

    async def remember(self, address: TaskAddress, uid: str) -> None:
        self.remembered.append((address.id, uid, self.uid == "u1"))

    @property
    def uid(self) -> str:
        found = self.cluster.objects.get((TASKS.plural, "images", "one"))
        return found["metadata"]["uid"] if found else ""

    async def once(self, minutes: int) -> int:
        now = ENDED + timedelta(minutes=minutes)
        expiry = Expiry(self.cluster, (None,), KeptSeconds(3600, 3600), self.remember, lambda: now)
        await expiry.once()
        return expiry.deleted


async def test_a_task_is_remembered_before_it_is_deleted() -> None:
    looking = Looking()
    assert await looking.once(minutes=59) == 0
    assert (looking.uid, looking.remembered) == ("u1", [])
    assert await looking.once(minutes=60) == 1
    assert (looking.uid, looking.remembered) == ("", [("one", "u1", True)])


async def test_a_task_that_only_waits_for_its_finalizers_is_not_deleted_again() -> None:
    looking = Looking()
    found = looking.cluster.objects[TASKS.plural, "images", "one"]
    found["metadata"] |= {"deletionTimestamp": "2026-03-01T09:30:00Z", "finalizers": ["example.com/kept"]}
    assert await looking.once(minutes=90) == 0
    assert (looking.uid, looking.remembered) == ("u1", [])


async def test_a_task_that_was_made_again_meanwhile_stays() -> None:
    looking = Looking()
    looking.cluster.before = lambda _request: looking.make("u2")
    assert await looking.once(minutes=60) == 0
    assert looking.uid == "u2"


async def test_a_task_whose_deletion_is_refused_keeps_no_other(caplog: pytest.LogCaptureFixture) -> None:
    looking = Looking()
    metadata = {"name": "two", "namespace": "images", "uid": "u2"}
    status = {"phase": "Succeeded", "completionTime": "2026-03-01T08:30:00Z"}
    looking.cluster.put(TASKS, {"metadata": metadata, "spec": {"queueName": "images"}, "status": status})
    delete = looking.cluster.delete

    async def refuse(resource: Any, namespace: str, name: str, **more: Any) -> None:
        if name == "one":
            raise NotAdmitted("delete", "task images/one", 403, "a policy is against it")
        await delete(resource, namespace, name, **more)

    looking.cluster.delete = refuse  # type: ignore[method-assign, assignment]
    assert await looking.once(minutes=60) == 1
    assert looking.uid == "u1"
    assert "task not expired" in caplog.messages


async def test_an_api_server_that_is_away_ends_the_look() -> None:
    looking = Looking()

    async def away(*_rest: Any, **_more: Any) -> None:
        raise ClusterUnreachable("https://x", "delete", "no answer")

    looking.cluster.delete = away  # type: ignore[method-assign]
    with pytest.raises(ClusterUnreachable):
        await looking.once(minutes=60)
