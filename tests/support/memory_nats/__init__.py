"""A nats-server in memory: the rules that `tests/facts` pins of the real one, in any event loop's time."""

from tests.support.memory_nats.client import MemoryBroker, MemoryClient
from tests.support.memory_nats.server import MemoryServer, Seen

__all__ = ["MemoryBroker", "MemoryClient", "MemoryServer", "Seen"]
