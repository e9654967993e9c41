"""`galley keys`: makes keys for encrypted queues, and tells which are still in use."""

import base64
import os
from argparse import ArgumentParser, Namespace
from datetime import UTC
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from galley.broker import queue_view
from galley.broker.key_usage import PLAINTEXT, key_usage
from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument
from galley.cli.server import connected, namespace_argument, server_arguments
from galley.cli.terminal import Terminal
from galley.encryption.keys import PRIMARY, PROVIDER, LocalKeys, read_entries
from galley.encryption.token import KEY_BYTES, KEY_ID


class _Use(NamedTuple):
    """How often a key is used."""

    key: str
    counts: dict[str, int]


USES: Final = Listing[_Use](
    (
        Column("key", lambda use: use.key or "(not encrypted)"),
        Column("tasks", lambda use: use.counts["tasks"]),
        Column("later", lambda use: use.counts["later"]),
        Column("records", lambda use: use.counts["records"]),
        Column("dead letters", lambda use: use.counts["dead letters"]),
    ),
    name=lambda use: use.key,
    document=lambda use: {"key": use.key or None, **use.counts},
    empty="no payload of this queue",
)


def _arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="new|usage", required=True)
    new = actions.add_parser("new", help="print a Secret with a new primary key and the earlier keys")
    new.add_argument("secret", metavar="SECRET", type=text, help="name of the Secret")
    new.add_argument(
        "--add-to", metavar="PATH", type=Path,
        help="existing keys to keep: a folder, or the manifest of the Secret",
    )  # fmt: skip
    new.add_argument("--id", type=text, help="id of the new key; else made from the time")
    new.add_argument(
        "--not-primary", action="store_true",
        help="keep the present primary key: the first step of a rotation, until all programs have both keys",
    )  # fmt: skip
    new.add_argument(
        "--write", metavar="FILE", type=Path,
        help="write to a new file that only you can read, instead of printing",
    )  # fmt: skip
    namespace_argument(new)
    usage = actions.add_parser("usage", help="count the payloads that each key encrypts")
    usage.add_argument("queue", metavar="QUEUE", type=text)
    format_argument(usage, *Format)
    server_arguments(usage, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    if options.action == "new":
        manifest = _secret(options, terminal)
        if options.write is None:
            terminal.result(manifest.rstrip())
        else:
            _write(terminal.folder / options.write, manifest)
        return ExitCode.DONE
    async with connected(options, terminal) as client:
        await queue_view.queue(client.broker, client.namespace, options.queue)
        found = await key_usage(client.broker, client.namespace, options.queue)
    keys = sorted(
        {key for counts in found.values() for key in counts}, key=lambda key: (key == PLAINTEXT, key)
    )
    uses = [_Use(key, {what: counts[key] for what, counts in found.items()}) for key in keys]
    USES.write(uses, options.output, terminal)
    return ExitCode.DONE


def _write(path: Path, manifest: str) -> None:
    """Write a file that only its owner can read.

    Raises:
        Misuse: if it cannot be written, or exists: it may be the only place that has some key.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(manifest)
    except OSError as error:
        raise Misuse(f"{path} cannot be written: {error.strerror}", "name a new file") from None


def _secret(options: Namespace, terminal: Terminal) -> str:
    """Return the manifest of a Secret with a new key.

    Raises:
        Misuse: if the id cannot be used.
        EncryptionKeysInvalid: if the keys so far cannot be used.
    """
    entries = read_entries(terminal.folder / options.add_to) if options.add_to is not None else {}
    if PROVIDER in entries:
        raise Misuse(f"the keys of {options.add_to} are in a key service", "make a new key there")
    if entries:
        LocalKeys(str(options.add_to), lambda: entries)  # raises if they cannot be used
    chosen = options.id if options.id is not None else f"k{terminal.now().astimezone(UTC):%Y%m%d-%H%M%S}"
    if KEY_ID.fullmatch(chosen) is None or chosen in (PRIMARY, PROVIDER):
        raise Misuse(f"{chosen[:80]!r} cannot be the id of a key", "use 1 to 63 letters, digits, _ and -")
    if chosen in entries:
        raise Misuse(f"there is a key {chosen!r} already", "choose another --id")
    keep = options.not_primary and PRIMARY in entries
    primary = entries[PRIMARY].decode().strip() if keep else chosen
    keys = {name: value.decode().strip() for name, value in entries.items() if name != PRIMARY}
    keys[chosen] = base64.b64encode(os.urandom(KEY_BYTES)).decode()
    metadata = {"name": options.secret, "labels": {"galley.dev/workers": "allowed"}}
    if options.namespace:
        metadata["namespace"] = options.namespace
    document = {
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "stringData": {PRIMARY: primary, **keys},
    }  # fmt: skip
    return yaml.safe_dump(document, sort_keys=False)


command: Final = Command(
    "keys",
    "Create keys for an encrypted queue, or count what each key encrypts",
    _arguments,
    _run,
    ("galley keys new image-keys", "galley keys usage images -o json"),
)
