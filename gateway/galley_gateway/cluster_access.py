"""Access as the Kubernetes API decides it: TokenReview says who, SubjectAccessReview says what.

A right in the namespace counts for all its queues. Without it, the queue alone is asked for: as the name of
the TaskQueue, or for tasks and schedules as the parts `taskqueues/tasks` and `taskqueues/schedules` of it, so
that a Role with `resourceNames` can grant a single queue.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from galley.remembered import Remembered
from galley_gateway.access import Right, User
from galley_gateway.errors import AccessUnknown, NotIdentified, NotPermitted
from galley_gateway.limits import Rates
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError
from galley_operator.cluster.resource import Resource

log = logging.getLogger(__name__)

REMEMBERED_SECONDS: Final = 10.0
"""How long an answer counts: a token or a right that is taken away works for so long at most."""

_UNKNOWN_TOKENS: Final = 50.0
"""Tokens a second that are asked about without having been accepted before: guesses must not keep the API
server busy."""

_MOST_ACCEPTED: Final = 10_000
"""Accepted tokens that are remembered, so that guesses of others do not keep their users out."""

TOKEN_REVIEWS: Final = Resource(
    "authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False
)
ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
_PARTS: Final = {"tasks": "tasks", "taskschedules": "schedules"}


class ClusterAccess:
    """Asks one API server."""

    login = True

    def __init__(
        self,
        cluster: Cluster,
        audiences: tuple[str, ...] = (),
        *,
        remembered_seconds: float = REMEMBERED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe it.

        Args:
            cluster: the API server.
            audiences: of which a token has to be for one; empty means the API server's own.
            remembered_seconds: how long an answer counts.
            clock: seconds, from anywhere on.
        """
        self._cluster, self._audiences = cluster, audiences
        self._users: Remembered[User | str] = Remembered(remembered_seconds, clock)
        self._rights: Remembered[bool] = Remembered(remembered_seconds, clock)
        self._unknown = Rates(_UNKNOWN_TOKENS, clock)
        self._accepted: OrderedDict[bytes, None] = OrderedDict()

    async def identify(self, token: str) -> User:
        """Return whose token it is.

        Raises:
            NotIdentified: if it is empty, or the cluster does not accept it.
            RateExceeded: if too many tokens come that were never accepted, and it is one of them.
            AccessUnknown: if the cluster does not answer.
        """
        if not token:
            raise NotIdentified("it has no token")
        if len(token.split()) > 1 or not token.isprintable():
            # The API server would take the first word, and the others would make it another token to us.
            raise NotIdentified("its token has more than one word")
        # Tokens themselves are not kept in memory.
        key = hashlib.sha256(token.encode()).digest()
        found = await self._users.get(key, lambda: self._review(token, key))
        if isinstance(found, str):
            raise NotIdentified(found)
        return found

    async def _review(self, token: str, key: bytes) -> User | str:
        if key not in self._accepted:
            self._unknown.take("")
        found = await self._user_of(token)
        self._accepted.pop(key, None)
        if isinstance(found, User):
            self._accepted[key] = None
            if len(self._accepted) > _MOST_ACCEPTED:
                self._accepted.popitem(last=False)
        return found

    async def _user_of(self, token: str) -> User | str:
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = list(self._audiences)
        status = await self._ask(TOKEN_REVIEWS, spec)
        if not status.get("authenticated"):
            return "its token is wrong, has expired, or is for another cluster"
        if self._audiences and not set(status.get("audiences", ())) & set(self._audiences):
            return f"its token is not for {' or '.join(self._audiences)}"
        user = status["user"]
        extra = tuple((name, tuple(values)) for name, values in sorted(user.get("extra", {}).items()))
        return User(user["username"], user.get("uid", ""), tuple(user.get("groups", ())), extra)

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        """Return if the user has a right in a namespace, or on one queue of it.

        Raises:
            NotPermitted: if not.
            AccessUnknown: if the cluster does not answer.
        """
        if right.resource == "taskqueues":
            asked = [{"resource": "taskqueues", **({"name": queue} if queue else {})}]
        else:
            resource, _, part = right.resource.partition("/")
            asked = [{"resource": resource, **({"subresource": part} if part else {})}]
            if queue:
                part = _PARTS[right.resource]
                asked.append({"resource": "taskqueues", "subresource": part, "name": queue})
        for each in asked:
            attributes = {"group": "galley.dev", "verb": right.verb, "namespace": namespace, **each}
            if await self._allowed(user, attributes):
                return
        raise NotPermitted(user.name, right.verb, right.resource, namespace)

    async def _allowed(self, user: User, attributes: dict[str, str]) -> bool:
        key = (user, tuple(sorted(attributes.items())))

        async def ask() -> bool:
            spec = {
                "user": user.name,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": {name: list(values) for name, values in user.extra},
                "resourceAttributes": attributes,
            }
            status = await self._ask(ACCESS_REVIEWS, spec)
            return bool(status.get("allowed")) and not status.get("denied")

        return await self._rights.get(key, ask)

    async def _ask(self, kind: Resource, spec: dict[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}, "spec": spec}
        try:
            answer = await self._cluster.create(kind, body)
        except ClusterError as error:
            log.warning("access not known", extra={"error": str(error), "hint": error.hint})
            raise AccessUnknown(error.reason) from error
        status: dict[str, Any] = answer.get("status", {})
        return status
