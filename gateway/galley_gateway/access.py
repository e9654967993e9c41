"""Who is asking, and what they may do: the words of it. The cluster decides (`cluster_access`)."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True)
class User:
    """Someone the cluster knows."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Right:
    """What Kubernetes calls a verb on a resource of `galley.dev`."""

    verb: str
    resource: str
    """`tasks`, `taskqueues`, `taskschedules` or `topics`, or a part of one, such as `topics/events`."""


class Access(Protocol):
    """Decides on each request."""

    login: bool
    """Whether people have to log in."""

    def identify(self, token: str) -> Awaitable[User]:
        """Return whose token it is.

        Raises:
            NotIdentified: if it is empty, or the cluster does not accept it.
            AccessUnknown: if the cluster does not answer.
        """
        ...

    def check(self, user: User, right: Right, namespace: str, queue: str = "") -> Awaitable[None]:
        """Return if the user has a right in a namespace, or on one queue of it.

        Raises:
            NotPermitted: if not.
            AccessUnknown: if the cluster does not answer.
        """
        ...


LOCAL_USER: Final = User("local")


class OpenAccess:
    """Admits everyone: for `galley dev`, which listens on loopback and checks where requests come from."""

    login = False

    async def identify(self, token: str) -> User:
        """Return the only user there is."""
        del token
        return LOCAL_USER

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        """Allow it."""
