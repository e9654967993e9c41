"""Finds the server and the namespace for a command."""

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from galley import dev_file
from galley.cli.command import PLUG_INS, Command, Serving, text
from galley.cli.errors import NoServer
from galley.cli.terminal import Terminal
from galley.client import AsyncClient, connect
from galley.encryption.given import keys_in, read_given
from galley.target import Target
from galley.target import find_target as target_of
from galley.tls import Tls, tls_of

if TYPE_CHECKING:
    from argparse import _ActionsContainer

CONNECTION: Final = "connection options"
"""Title of the options that commands which talk to a server have in common."""


def server_arguments(parser: ArgumentParser, *, reads: bool = False) -> None:
    """Declare the options every command has that talks to a server.

    Args:
        parser: of the command.
        reads: whether the command only reads, and so can read what an ended `galley dev` kept.
    """
    parser.set_defaults(reads=reads)
    group = parser.add_argument_group(CONNECTION)
    group.add_argument(
        "--server", metavar="URL", type=text,
        help="NATS server; else GALLEY_SERVER, else the `galley dev` of this folder or one above",
    )  # fmt: skip
    group.add_argument(
        "--credentials", metavar="FILE", type=Path,
        help="credentials file for NATS; else GALLEY_CREDENTIALS. On a cluster: nats.creds of the Secret "
        "galley-QUEUE-producer or galley-QUEUE-manager",
    )  # fmt: skip
    tls_arguments(group)
    group.add_argument(
        "--keys", metavar="[QUEUE=]PATH", type=text, action="append",
        help="keys of one encrypted queue, or of all: a folder with one file per key, or the manifest of a "
        "Secret; else GALLEY_KEYS; may be given several times",
    )  # fmt: skip
    namespace_argument(group)


def tls_arguments(parser: "_ActionsContainer") -> None:
    """Declare the options about TLS to NATS, in a parser or a group of its options."""
    for name, words in (
        ("ca", "certificates of authorities to trust (ca.crt of that Secret); else GALLEY_TLS_CA"),
        ("certificate", "client certificate, if NATS requires one; else GALLEY_TLS_CERTIFICATE"),
        ("key", "its private key; else GALLEY_TLS_KEY, else the same file"),
    ):
        parser.add_argument(f"--tls-{name}", metavar="FILE", type=Path, help=words)
    parser.add_argument(
        "--tls-server-name", metavar="NAME", type=text, default="",
        help="name in the certificate of NATS; else GALLEY_TLS_SERVER_NAME, else the host of its address",
    )  # fmt: skip


def namespace_argument(parser: "_ActionsContainer") -> None:
    """Declare `-n`."""
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", type=text,
        help="namespace of the queue; else GALLEY_NAMESPACE, else that of `galley dev`, else `default`",
    )  # fmt: skip


def find_target(options: Namespace, terminal: Terminal) -> Target:
    """Return the server and namespace: from the options, else the environment, else a `galley dev` nearby.

    Raises:
        NoServer: if none is configured, or the `galley dev` that was found has ended.
    """
    nearest = dev_file.nearest(terminal.folder)
    dev = nearest[1] if nearest else None
    target = target_of(options.server, options.namespace, terminal.environ, dev)
    if target is not None:
        return target
    if nearest is None:
        raise NoServer("no server is named, and no `galley dev` runs in this folder or one above it")
    path, ended = nearest
    raise NoServer(f"the `galley dev` of {path.parent.parent} (process {ended.pid}) is not running")


@asynccontextmanager
async def connected(options: Namespace, terminal: Terminal) -> AsyncIterator[AsyncClient]:
    """Yield a client for the server and namespace of the command.

    Raises:
        NoServer: if no server is configured.
        BrokerUnreachable, BrokerTooOld: if it cannot be used.
        TlsInvalid, TlsFailed: if there is no encrypted connection.
        CredentialsInvalid, CredentialsExpired, AccessRefused: if it refuses the credentials.
        EncryptionKeysInvalid: if the keys cannot be used.
    """
    async with AsyncExitStack() as serving:
        try:
            target = find_target(options, terminal)
        except NoServer as nothing:
            kept = _kept(options, terminal) if options.reads else None
            if kept is None:
                raise
            terminal.say(f"{nothing}; reading what the last one kept")
            target = await serving.enter_async_context(kept)
        tls = tls_for(options, terminal, target)
        keys = read_given(options.keys or keys_in(terminal.environ), terminal.folder)
        async with connect(
            target.server, target.namespace, credentials=options.credentials, tls=tls, keys=keys
        ) as client:
            yield client


def tls_for(options: Namespace, terminal: Terminal, target: Target) -> Tls | None:
    """Return how a command encrypts its connection to NATS; None if nothing asks for that."""
    given = {
        "ca": options.tls_ca,
        "certificate": options.tls_certificate,
        "key": options.tls_key,
        "server_name": options.tls_server_name,
    }
    # A `galley dev` takes no notice of settings for a cluster in the environment.
    return tls_of(target.server, {} if target.local else terminal.environ, **given)


def _kept(options: Namespace, terminal: Terminal) -> Serving | None:
    """Return what serves the tasks that were kept in this folder or one above it, if there are any."""
    for entry in metadata.entry_points(group=PLUG_INS):
        with suppress(ImportError):  # a package without its extra; `main` tells when its command is used
            command: Command = entry.load()
            serving = (
                command.kept(terminal.folder, options.namespace, terminal.environ) if command.kept else None
            )
            if serving is not None:
                return serving
    return None
