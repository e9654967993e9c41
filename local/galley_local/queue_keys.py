"""Keys of the queues that `galley dev` runs: those that encrypt, and those that sign requests."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from galley.encryption import read_keys
from galley.encryption.given import ALL_QUEUES, keys_in, read_given
from galley_local.errors import FilesUnusable
from galley_local.plan import Plan
from galley_local.project import Project

SIGNING_VARIABLE: Final = "GALLEY_SIGNING_KEYS"


def keys_of(plan: Plan, texts: Sequence[str], environ: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Return where the keys of the encrypted queues of a plan are, by the queue's name.

    Args:
        plan: the queues.
        texts: keys that were given, as `PATH` or `QUEUE=PATH`.
        environ: environment variables, for `GALLEY_KEYS` if none were given.
        folder: that paths are relative to.

    Raises:
        FilesUnusable: if a queue is encrypted, and there are no keys for it.
        EncryptionKeysInvalid: if keys cannot be used.
    """
    given = read_given(texts or keys_in(environ), folder)
    found: dict[str, Path] = {}
    for queue in plan.queues.values():
        encryption, name = queue.resource.spec.encryption, queue.name[1]
        if encryption is None:
            continue
        path = given.get(name, given.get(ALL_QUEUES))
        if path is None:
            raise FilesUnusable(
                f"{queue.source}: queue {name!r} is encrypted, and no keys are given for it",
                f"galley keys new {encryption.secret_name} --write keys.yaml makes some; "
                f"then add --keys {name}=keys.yaml, or set GALLEY_KEYS",
            )
        read_keys(path)  # so that an error is told here, and not by each worker
        found[name] = path
    return found


def signing_keys_of(plan: Plan, environ: Mapping[str, str], project: Project) -> dict[str, Path]:
    """Return where the keys are that sign the requests of HTTP handlers, by the Secret's name.

    They are those of `GALLEY_SIGNING_KEYS`, as `PATH` or `SECRET=PATH`, or else made for the project.

    Raises:
        EncryptionKeysInvalid: if two are given for the same Secret.
        FolderUnusable: if a key cannot be written.
    """
    texts = environ.get(SIGNING_VARIABLE, "").split(os.pathsep)
    given = read_given((text for text in texts if text), project.folder)
    names = {
        handler.secret_name
        for queue in plan.queues.values() for handler in queue.resource.spec.handlers.http
    }  # fmt: skip
    return {
        name: given.get(name) or given.get(ALL_QUEUES) or project.signing_key(name) for name in sorted(names)
    }


def as_setting(keys: dict[str, Path]) -> str:
    """Return keys as `GALLEY_KEYS` and `GALLEY_SIGNING_KEYS` have them."""
    return os.pathsep.join(f"{name}={path}" for name, path in keys.items())
