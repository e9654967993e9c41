from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from galley_operator.status.expiry import FinishedTask, expires_at

ENDED = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def a_finished_task(ttl: int | None = None, ended: datetime | None = ENDED, **metadata: Any) -> FinishedTask:
    body: dict[str, Any] = {"metadata": {"name": "one", "namespace": "images", "uid": "u1", **metadata}}
    if ttl is not None:
        body["spec"] = {"ttlSecondsAfterFinished": ttl}
    if ended is not None:
        body["status"] = {"completionTime": ended}
    return msgspec.convert(msgspec.to_builtins(body), FinishedTask, strict=False)


def test_a_task_goes_when_its_own_time_is_over() -> None:
    assert expires_at(a_finished_task(60), None) == ENDED + timedelta(seconds=60)
    assert expires_at(a_finished_task(0), 3600) == ENDED


def test_a_task_that_says_nothing_goes_by_the_default_or_stays() -> None:
    assert expires_at(a_finished_task(), 60) == ENDED + timedelta(seconds=60)
    assert expires_at(a_finished_task(), None) is None


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
    assert expires_at(a_finished_task(**metadata), 60) is None
    assert expires_at(a_finished_task(60, **metadata), None) is not None


def test_a_task_that_does_not_say_when_it_ended_stays() -> None:
    assert expires_at(a_finished_task(60, ended=None), 60) is None
