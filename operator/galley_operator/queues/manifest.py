"""The TaskQueue as its workers are given it."""

import hashlib
import json
from typing import Any

from galley.resources import API_VERSION, TaskQueue

_NOT_FOR_WORKERS = ("scaling", "limits")
_IN_THE_POD = ("image", "code", "template")


def manifest_for_workers(queue: TaskQueue) -> str:
    """Return what workers have to know of a queue, as JSON.

    Scaling and limits are left out, so that a change of them replaces no worker; and so is all that has its
    default, which an older worker may not know yet.
    """
    spec: dict[str, Any] = queue.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for part in _NOT_FOR_WORKERS:
        spec.pop(part, None)
    worker = {key: value for key, value in spec.pop("worker", {}).items() if key not in _IN_THE_POD}
    metadata = {"name": queue.metadata.name, "namespace": queue.metadata.namespace}
    spec |= {"worker": worker} if worker else {}
    document = {"apiVersion": API_VERSION, "kind": queue.kind, "metadata": metadata, "spec": spec}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def digest(text: str) -> str:
    """Return a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
