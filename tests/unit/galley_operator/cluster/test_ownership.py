"""Which objects the operator may change."""

from typing import Any

import pytest

from galley_operator.cluster.ownership import check_owner
from galley_operator.cluster.resource import CONFIGMAPS
from galley_operator.errors import NameTaken

OWNER = {"apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue", "name": "images", "uid": "1"}
LABELS = {"app.kubernetes.io/name": "galley-worker", "galley.dev/queue": "images"}
OURS = {"name": "galley-images", "namespace": "shop", "labels": LABELS, "ownerReferences": [OWNER]}


def present(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "galley-images", "namespace": "shop", **metadata}}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [OWNER]},
        {"ownerReferences": [{**OWNER, "uid": "of the queue before"}]},
        {"ownerReferences": [{**OWNER, "apiVersion": "galley.dev/v1"}]},
        {"labels": {**LABELS, "team": "blue"}},
    ],
)
def test_what_a_queue_of_that_name_made_is_ours(metadata: dict[str, Any]) -> None:
    check_owner(CONFIGMAPS, present(**metadata), OURS)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"labels": None, "ownerReferences": None},
        {"labels": {"galley.dev/queue": "images"}},
        {"labels": {**LABELS, "galley.dev/queue": "nats"}},
        {"ownerReferences": [{**OWNER, "kind": "Task"}]},
        {"ownerReferences": [{**OWNER, "name": "other"}]},
        {"ownerReferences": [{**OWNER, "apiVersion": "example.com/v1alpha1"}]},
    ],
)
def test_what_only_has_the_name_is_refused_by_name(metadata: dict[str, Any]) -> None:
    with pytest.raises(NameTaken, match="ConfigMap 'galley-images' in namespace 'shop'") as error:
        check_owner(CONFIGMAPS, present(**metadata), OURS)
    assert "under another name" in error.value.hint
