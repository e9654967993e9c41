"""The keys a program or a command is given, for all queues or for some."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from galley.encryption.data_keys import DataKeys
from galley.encryption.errors import EncryptionKeysInvalid
from galley.encryption.keys import KeyProvider, read_keys
from galley.encryption.payloads import Payloads

KEYS_VARIABLE: Final = "GALLEY_KEYS"

ALL_QUEUES: Final = ""

Source: TypeAlias = str | Path | KeyProvider
"""Where keys are: a folder with a file for each, the manifest of a Secret, or what has them."""

Given: TypeAlias = Source | Mapping[str, Source]
"""Keys for all queues a client works with, or for those that are named."""


def read_given(texts: Iterable[str], folder: Path = Path()) -> dict[str, Path]:
    """Return where the keys are that `PATH` and `QUEUE=PATH` name, by queue; `ALL_QUEUES` for all others.

    Args:
        texts: as given.
        folder: that paths are relative to.

    Raises:
        EncryptionKeysInvalid: if two are for the same queue.
    """
    found: dict[str, Path] = {}
    for text in texts:
        queue, equals, path = text.partition("=")
        if not equals or "/" in queue:
            queue, path = ALL_QUEUES, text
        if queue in found:
            whose = repr(queue) if queue else "all queues"
            raise EncryptionKeysInvalid(path, f"there are keys for {whose} already")
        found[queue] = folder / path
    return found


def keys_in(environ: Mapping[str, str]) -> list[str]:
    """Return what an environment names: `GALLEY_KEYS`, several separated as in PATH."""
    return [text for text in environ.get(KEYS_VARIABLE, "").split(os.pathsep) if text]


def payloads_with(given: Given | None) -> Payloads:
    """Return what encrypts and decrypts with keys.

    Raises:
        EncryptionKeysInvalid: if they cannot be used.
    """
    if not given:
        return Payloads()
    named = given if isinstance(given, Mapping) else {ALL_QUEUES: given}
    keys = {queue: DataKeys(_provider(source)) for queue, source in named.items()}
    others = keys.get(ALL_QUEUES)
    return Payloads(lambda _namespace, queue: keys.get(queue, others))


def _provider(source: Source) -> KeyProvider:
    return read_keys(Path(source)) if isinstance(source, str | Path) else source
