"""Which tasks of a queue have a message in its streams: waiting, in a worker's hands, or for later."""

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info

_AT_ONCE = 100_000


async def held(broker: Broker, namespace: str, queue: str, kind: Kind) -> dict[str, TaskAddress] | None:
    """Return the tasks of one kind by their id, or None if the queue has no streams.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found: dict[str, TaskAddress] = {}
    pattern = f"galley.*.{namespace}.{queue}.*.{kind}.*"
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        offset = 0
        while True:
            info = await stream_info(broker, stream, {"subjects_filter": pattern, "offset": offset})
            if info is None:
                return None
            subjects = info["state"].get("subjects") or {}
            for subject in subjects:
                address = topology.parse_task_subject(subject)
                found[address.id] = address
            offset += len(subjects)
            if len(subjects) < _AT_ONCE:
                break
    return found
