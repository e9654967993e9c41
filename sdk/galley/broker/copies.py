"""In how many copies the servers of NATS keep each stream, and whether all of them are complete."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from galley.broker.connection import Broker
from galley.broker.snapshot import owned_streams


class Copies(Struct, frozen=True, rename="camel"):
    """The copies of one stream."""

    stream: str
    namespace: str
    messages: int
    replicas: int
    """As many as there should be."""
    leader: str
    """The server that decides; empty if the stream has none and is not available, or there is one server."""
    current: list[str]
    """Servers besides the leader that have all of it."""
    behind: list[str]
    """Servers that are offline, or do not have all of it yet."""
    change: str
    """What the servers still do to move or copy it; empty if nothing. The copies can be current before."""

    @property
    def complete(self) -> bool:
        """Whether any one server may be lost now."""
        return self.replicas > 1 and not self.change and len(self.current) >= self.replicas - 1


async def copies(broker: Broker, namespaces: Sequence[str] = ()) -> list[Copies]:
    """Return the copies of all streams.

    Args:
        broker: an open connection that may list them.
        namespaces: whose streams; none means all.

    Raises:
        BrokerUnreachable: if the broker does not answer, for which a majority of the servers is needed.
    """
    return [
        _copies_of(each.name, each.namespace, each.messages, each.config["num_replicas"], each.cluster)
        for each in await owned_streams(broker, tuple(namespaces))
    ]


async def set_replicas(broker: Broker, replicas: int, namespaces: Sequence[str] = ()) -> list[str]:
    """Have each stream kept in so many copies; tasks run on meanwhile.

    Returns:
        The streams that were changed. The new copies are filled afterwards; `copies` shows when that is done.
        If a stream's leader is lost before, the stream may have none until that server is back.

    Raises:
        BrokerRefused: if there are not enough servers. What was changed before stays so.
        BrokerUnreachable: if the broker does not answer.
    """
    changed = []
    for each in await owned_streams(broker, tuple(namespaces)):
        if each.config["num_replicas"] != replicas:
            config = {**each.config, "num_replicas": replicas}
            action = f"keep stream {each.name} in {replicas} copies"
            await broker.api(action, f"STREAM.UPDATE.{each.name}", config)
            changed.append(each.name)
    return changed


def _copies_of(stream: str, namespace: str, messages: int, replicas: int, cluster: dict[str, Any]) -> Copies:
    others = cluster.get("replicas") or []
    current = [each["name"] for each in others if each.get("current") and not each.get("offline")]
    behind = [each["name"] for each in others if each["name"] not in current]
    change = ((cluster.get("desired") or {}).get("status") or {}).get("description", "")
    return Copies(stream, namespace, messages, replicas, cluster.get("leader", ""), current, behind, change)
