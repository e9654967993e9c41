"""Whether an object that is already there is ours to change, or may be used by a queue."""

from typing import Any, Final

from galley_operator.cluster.resource import Resource
from galley_operator.errors import NameTaken

USABLE_LABEL: Final = "galley.dev/workers"
"""An object that a queue did not make must have this, as "allowed", before the queue uses it."""

NO_LABEL: Final = f"it has no label {USABLE_LABEL}=allowed"


def allows_use(found: dict[str, Any]) -> bool:
    """Return whether the owner of an object allows queues of its namespace to use it."""
    return bool((found["metadata"].get("labels") or {}).get(USABLE_LABEL) == "allowed")


def check_owner(resource: Resource, present: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to touch an object that only has the name of one of ours.

    It is ours if it has an owner of the same kind and name, also one of an earlier uid: an object that was
    deleted and created again takes over what it left behind. It is ours, too, if it has all our labels: the
    garbage collector removes the owner of what is left behind on purpose.

    Args:
        resource: its kind.
        present: the object as it is.
        wanted: the metadata our object of that name has.

    Raises:
        NameTaken: if it is not ours.
    """
    found = present["metadata"]
    owners = {_identity(owner) for owner in found.get("ownerReferences") or ()}
    ours = {_identity(owner) for owner in wanted.get("ownerReferences") or ()}
    labels = found.get("labels") or {}
    labelled = all(labels.get(key) == value for key, value in wanted["labels"].items())
    if not (owners & ours or labelled):
        raise NameTaken(resource.kind, found["name"], found["namespace"])


def _identity(owner: dict[str, Any]) -> tuple[str, str, str]:
    return owner.get("apiVersion", "").partition("/")[0], owner.get("kind", ""), owner.get("name", "")
