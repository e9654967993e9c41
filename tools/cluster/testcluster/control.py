"""How one tells a running cluster what to do: a line of JSON each way, over a socket named after its folder.

The socket is an abstract one. It has no file that could be left behind, its name can be as long as it likes,
and the kernel gives it to one process at a time: who holds it, is the cluster.
"""

import json
import os
import socket
import struct
from typing import Any, Final

from testcluster.errors import AlreadyRunning, ClusterError, NotRunning

_BACKLOG: Final = 16
_MOST_BYTES: Final = 4 * 1024 * 1024
_SECONDS: Final = 10.0
_CREDENTIALS: Final = struct.Struct("iII")


def claim(name: str) -> socket.socket:
    """Return a listening socket that only one process can have at a time.

    Raises:
        AlreadyRunning: if another process has it.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(f"\0{name}")
    except OSError as error:
        listening.close()
        raise AlreadyRunning(f"{name} is taken") from error
    listening.listen(_BACKLOG)
    return listening


def address(key: str) -> str:
    """Return the name under which a cluster listens."""
    return f"galley-cluster-{key}"


def ask(key: str, op: str, *, within: float = _SECONDS, **values: Any) -> dict[str, Any]:
    """Let a cluster do something and return what it answers.

    Raises:
        NotRunning: if it does not run.
        ClusterError: if it could not do it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within)
        try:
            connection.connect(f"\0{address(key)}")
            connection.sendall(json.dumps({"op": op, **values}).encode() + b"\n")
            answer = receive(connection)
        except TimeoutError:
            raise ClusterError(f"the cluster did not answer {op} within {within:g} s") from None
        except OSError:
            raise NotRunning("the cluster does not run", "testcluster up") from None
    if "error" in answer:
        raise ClusterError(str(answer["error"]))
    return answer


def receive(connection: socket.socket) -> dict[str, Any]:
    """Return the line of JSON the other side sent.

    Raises:
        ConnectionError: if it hung up before it was complete.
    """
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece or len(data) > _MOST_BYTES:
            raise ConnectionError("hung up in the middle of a line")
        data += piece
    return dict(json.loads(data))


def answer(connection: socket.socket, values: dict[str, Any]) -> None:
    """Send a line of JSON and hang up; an asker who left is no trouble."""
    try:
        connection.sendall(json.dumps(values).encode() + b"\n")
    except OSError:
        return
    finally:
        connection.close()


def may_ask(connection: socket.socket) -> bool:
    """Tell whether the other side is of our own user, or root: an abstract socket has no permissions."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, user, _group = _CREDENTIALS.unpack(raw)
    return user in {0, os.geteuid()}
