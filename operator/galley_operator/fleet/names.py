"""What a queue's objects are called, and by which labels they are found."""

from typing import Final

OPERATOR: Final = "galley-operator"
"""Who owns what we write of a queue's objects, the number of replicas apart."""

QUEUE_LABEL: Final = "galley.dev/queue"
APP_LABEL: Final = "app.kubernetes.io/name"
PART_LABEL: Final = "app.kubernetes.io/managed-by"

APP: Final = "galley-worker"
OURS: Final = f"{APP_LABEL}={APP}"
"""Selects all objects of all queues."""

MANIFEST_ANNOTATION: Final = "galley.dev/manifest"
"""Of a pod: which TaskQueue, as far as it concerns workers, it was started for."""

CODE_ANNOTATION: Final = "galley.dev/code"
"""Of a pod: which state of the ConfigMap with the code it was started with."""


def child_name(queue: str) -> str:
    """Return what the objects of a queue are called, each in its kind."""
    return f"galley-{queue}"


def labels_of(queue: str) -> dict[str, str]:
    """Return the labels of all objects of a queue."""
    return {**selected_by(queue), PART_LABEL: "galley"}


def selected_by(queue: str) -> dict[str, str]:
    """Return the labels the pods of a queue are selected by; they cannot be changed later."""
    return {APP_LABEL: APP, QUEUE_LABEL: queue}


def selector_of(queue: str) -> str:
    """Return the selector of a queue's pods as text."""
    return ",".join(f"{key}={value}" for key, value in selected_by(queue).items())
