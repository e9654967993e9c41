"""What the streams of queues tell producers: which take encrypted tasks only, and which topics hear of tasks.

A stream is asked once, and again now and then; many tasks that need the answer at once share it.
"""

import asyncio
from functools import partial
from typing import Any, Final, NamedTuple

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerError, BrokerUnreachable
from galley.encryption import EncryptionRequired, QueueNotEncrypted
from galley.remembered import Remembered

ASKED_AGAIN_SECONDS: Final = 60.0
"""How long a queue may have changed to encryption before a producer without keys learns of it; a task of such
a producer is refused by the workers."""

_CHECKED_SECONDS: Final = 1.0
"""Before a task is refused the queue is asked again, unless it was asked just now."""

_PAUSE_SECONDS: Final = 0.25


class _Rule(NamedTuple):
    encrypted: bool
    asked_at: float
    life: str = ""


class EncryptionRules:
    """The rules of the queues one publisher submits to."""

    def __init__(self, broker: Broker) -> None:
        self.any_life = False
        """Whether a topic hears, or heard, of the tasks of any of these queues."""
        self._broker = broker
        self._rules: dict[tuple[str, str], _Rule] = {}
        self._settled_until: dict[tuple[str, str], float] = {}
        self._asking: Remembered[_Rule | None] = Remembered(0.0)

    def settled(self, address: TaskAddress) -> bool:
        """Return whether a task may be sent by what was learned lately: each task asks this."""
        until = self._settled_until.get((address.namespace, address.queue), 0.0)
        return asyncio.get_running_loop().time() < until

    def life_of(self, address: TaskAddress) -> str:
        """Return the topic that hears of a queue's tasks; empty if there is none, or it is not known yet."""
        rule = self._rules.get((address.namespace, address.queue))
        return rule.life if rule is not None else ""

    async def check(self, address: TaskAddress, patience_seconds: float) -> None:
        """Check that a task of ours is encrypted if its queue demands it, and only then.

        Args:
            address: where it goes.
            patience_seconds: how long to ask again while the broker does not answer.

        Raises:
            EncryptionRequired: the queue demands it, and we have no keys of it.
            QueueNotEncrypted: we have keys, and the queue has none.
            BrokerUnreachable: it is not known, since the broker does not answer.
        """
        ours = self._broker.payloads.keys_of(address) is not None
        now = asyncio.get_running_loop().time()
        rule = self._rules.get((address.namespace, address.queue))
        if rule is None or now - rule.asked_at >= _CHECKED_SECONDS:
            give_up = now + (patience_seconds if rule is None else 0)
            rule = await self._shared(address, give_up, rule)
        if rule is None:
            return
        if rule.encrypted is ours:
            self._settled_until[address.namespace, address.queue] = rule.asked_at + ASKED_AGAIN_SECONDS
            return
        if rule.encrypted:
            raise EncryptionRequired(address.namespace, address.queue)
        raise QueueNotEncrypted(address.namespace, address.queue)

    async def _shared(self, address: TaskAddress, give_up: float, known: _Rule | None) -> _Rule | None:
        queue = address.namespace, address.queue
        while True:
            try:
                return await self._asking.get(queue, partial(self._ask, address, give_up, known))
            except BrokerUnreachable:
                # It may have been asked by a task whose patience ended before ours.
                if asyncio.get_running_loop().time() >= give_up:
                    raise

    async def _ask(self, address: TaskAddress, give_up: float, known: _Rule | None) -> _Rule | None:
        """Return the rule of a queue as it is now; None if there is no such queue, which publishing tells."""
        stream = topology.work_stream(address.namespace, address.queue)
        try:
            info = await self._insist(stream, give_up)
        except BrokerError:
            if known is None:
                raise
            # As if just asked: each further task would wait for the broker otherwise, one after the other.
            rule = known._replace(asked_at=asyncio.get_running_loop().time())
            self._rules[address.namespace, address.queue] = rule
            return rule
        if info is None:
            return None
        metadata = info["config"].get("metadata") or {}
        encrypted = metadata.get(topology.ENCRYPTION_KEY) == topology.ENCRYPTED
        life = str(metadata.get(topology.LIFE_KEY, ""))
        rule = _Rule(encrypted, asyncio.get_running_loop().time(), life)
        self._rules[address.namespace, address.queue] = rule
        self.any_life = self.any_life or bool(life)
        return rule

    async def _insist(self, stream: str, give_up: float) -> dict[str, Any] | None:
        while True:
            self._broker.check_usable()
            try:
                return await stream_info(self._broker, stream)
            except BrokerUnreachable:
                if asyncio.get_running_loop().time() >= give_up:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)
