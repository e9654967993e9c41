"""The audit log: who did what, and when, as one JSON line each, on a logger of its own.

`user` is the name under which the API server authenticated a person or program; it is there if the chart's
MutatingAdmissionPolicy writes it (Kubernetes 1.36). `manager` is what a client calls itself (its field
manager): a hint, and no proof. What is not known here is in the audit log of the API server.
"""

import logging
from dataclasses import dataclass
from typing import Any, Final

from galley.audit import Action, AuditLine, Writer

USER_ANNOTATION: Final = "galley.dev/changed-by"

_OURS: Final = frozenset(("galley-operator", "galley-autoscaler"))

log = logging.getLogger(__name__)
# Whatever the operator's level: these lines are the point.
log.setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Author:
    """Who changed the spec of an object last, as far as the object tells."""

    user: str = ""
    manager: str = ""
    scaled: bool = False
    """Whether it was by the scale subresource, of which no user is recorded."""


def author_of(metadata: dict[str, Any], *, users_recorded: bool) -> Author:
    """Return who changed an object last.

    Args:
        metadata: of the object.
        users_recorded: whether the API server writes the annotation; otherwise anyone could have.
    """
    entries = [
        entry
        for entry in metadata.get("managedFields") or ()
        if entry.get("manager") not in _OURS and entry.get("subresource", "") in ("", "scale")
    ]
    last: dict[str, str] = max(entries, key=lambda entry: str(entry.get("time", "")), default={})
    scaled = last.get("subresource") == "scale"
    user = (
        "" if scaled or not users_recorded else (metadata.get("annotations") or {}).get(USER_ANNOTATION, "")
    )
    return Author(user, last.get("manager", ""), scaled)


@dataclass(frozen=True, slots=True)
class About:
    """What a line is about, beside the queue; what is not known or does not apply is left empty."""

    task: str = ""
    uid: str = ""
    user: str = ""
    manager: str = ""
    generation: int | None = None
    workers: int | None = None
    reason: str = ""


def record(action: Action, namespace: str, queue: str, about: About) -> None:
    """Write a line.

    Args:
        action: what was done.
        namespace: of the queue.
        queue: its name.
        about: the rest.
    """
    log.info("audit", extra={
        "action": action, "namespace": namespace, "queue": queue, "task": about.task, "uid": about.uid,
        "user": about.user, "manager": about.manager, "generation": about.generation,
        "workers": about.workers, "reason": about.reason, "writer": Writer.OPERATOR,
    })  # fmt: skip


def heard(namespace: str, line: AuditLine) -> None:
    """Write a line that a client or a gateway has stored."""
    entry = line.entry
    log.info("audit", extra={
        "action": entry.action, "namespace": namespace, "queue": line.queue, "task": entry.task,
        "user": entry.user if line.attested else "", "says": "" if line.attested else entry.user,
        "origin": entry.origin, "count": entry.count, "reason": entry.detail, "writer": line.writer,
    })  # fmt: skip
