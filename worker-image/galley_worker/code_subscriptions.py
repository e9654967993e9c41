"""The subscriptions of `@task(subscribe=...)`: each worker that starts says what the code has.

During a rollout the worker that started last decides, which is one with the new code. The owner of the
streams (`galley.broker.topic_keeper`) takes it up; a worker may not change consumers.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError, NotAllowed
from galley.broker.topic_keeper import code_body
from galley.broker.topics import declare_code, subscribes_not
from galley.broker.topology import QueueLayout
from galley.errors import TopicFull
from galley_worker.runners.frames import HandlerRules

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0


async def subscribe(broker: Broker, layout: QueueLayout, rules: Mapping[str, HandlerRules]) -> None:
    """Say which subscriptions the handlers of a queue have, until it is stored.

    Args:
        broker: an open connection.
        layout: the queue's.
        rules: of its handlers, by name.
    """
    handlers = {name: its.subscribes for name, its in rules.items() if its.subscribes}
    lanes = {name: lane for name in handlers if (lane := rules[name].lane) is not None}
    body = code_body(handlers, lanes)
    topics = sorted({each.topic for several in handlers.values() for each in several})
    namespace, queue = layout.namespace, layout.queue
    told = False
    while True:
        try:
            if not handlers and await subscribes_not(broker, namespace, queue):
                return
            if await declare_code(broker, namespace, queue, body):
                log.info("subscriptions declared", extra={"topics": topics})
                return
            if not told:
                log.warning("no topic is declared in the namespace yet", extra={"topics": topics})
                told = True
        except NotAllowed as error:  # credentials of an earlier release
            log.warning("subscriptions not declared", extra={"error": str(error), "hint": error.hint})
            return
        except (BrokerError, TopicFull) as error:
            log.warning("subscriptions not declared yet", extra={"error": str(error), "hint": error.hint})
        await asyncio.sleep(_PAUSE_SECONDS)
