from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from galley_operator.status.expiry import FinishedTask, KeptSeconds, expires_at

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
