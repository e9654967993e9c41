"""The default server and namespace: the same rule for the command line and for programs."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from galley.dev_file import DevFile

DEFAULT_NAMESPACE: Final = "default"

SERVER_VARIABLE: Final = "GALLEY_SERVER"
NAMESPACE_VARIABLE: Final = "GALLEY_NAMESPACE"
CREDENTIALS_VARIABLE: Final = "GALLEY_CREDENTIALS"


class Target(NamedTuple):
    """A server, and a namespace on it."""

    server: str
    namespace: str
    local: bool = False
    """Whether it is that of a `galley dev`, which takes no credentials."""


def find_target(
    server: str | None, namespace: str | None, environ: Mapping[str, str], dev: DevFile | None
) -> Target | None:
    """Return the given server, else that of the environment, else that of a `galley dev` running nearby.

    Args:
        server: address of NATS, if given.
        namespace: if given.
        environ: environment variables.
        dev: the nearest `.galley/dev.json`.

    Returns:
        None if no server is configured.
    """
    server = server or environ.get(SERVER_VARIABLE)
    if not server:
        if dev is None or not dev.alive:
            return None
        server = dev.server
    ours = dev is not None and dev.server == server
    namespace = namespace or environ.get(NAMESPACE_VARIABLE) or (dev.namespace if dev and ours else None)
    return Target(server, namespace or DEFAULT_NAMESPACE, local=ours)
