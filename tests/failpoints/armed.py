"""A worker, or a program that submits, redrives or cancels, that fails where the file `FAILPOINT_FILE` says.

The file says `settle.before_ack crash`; that happens once. Run as
`python -m tests.failpoints.armed worker|submit|unique|large|redrive|cancel ARGUMENT...`.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from nats.aio.msg import Msg

from galley import Unique, When, call, connect
from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable
from galley.broker.pipeline import UNANSWERED, Ack, PublishPipeline
from galley.broker.pull import RENEW
from galley.failpoint import hook
from tests.failpoints.texts import large_text

DELAY_SECONDS: Final = 0.2
"""A stall that no lease of the tests notices."""
ORDER: Final = Path(os.environ["FAILPOINT_FILE"])
PASSED: Final = ORDER.with_suffix(".passed")
"""Where a process says that it came to the place."""


class _Losing:
    """What is lost next: the answer to a publish or a request, or an acknowledgement."""

    on = False


def passed(name: str) -> None:
    """Fail if this is the place."""
    try:
        place, fault = ORDER.read_text().split()
    except FileNotFoundError:
        return
    if place != name:
        return
    try:
        ORDER.rename(PASSED)
    except FileNotFoundError:
        return  # another process was here first
    match fault:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            time.sleep(DELAY_SECONDS)  # noqa: TID251 - the whole process stands still, that is the fault
        case "lose":
            _Losing.on = True
        case _:
            raise AssertionError(fault)


def lose_answers() -> None:
    """Lose answers on demand: the request was carried out, and its answer never arrives."""
    on_ack, publish, request = PublishPipeline._on_ack, Broker.publish, Broker.request

    def lossy_ack(pipeline: PublishPipeline, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        waited = pipeline._waiting.pop(subject, None) if _Losing.on else None
        if waited is None:
            on_ack(pipeline, subject, reply, data, headers)
        else:
            _Losing.on = False
            waited.hear(Ack(0, UNANSWERED, "the answer was lost"))

    def lossy_publish(broker: Broker, subject: str, body: bytes = b"", reply: str = "") -> None:
        if _Losing.on and subject.startswith("$JS.ACK.") and body != RENEW:
            _Losing.on = False
        else:
            publish(broker, subject, body, reply)

    async def lossy_request(broker: Broker, *arguments: Any, **named: Any) -> Msg | None:
        answer = await request(broker, *arguments, **named)
        if _Losing.on:
            _Losing.on = False
            raise BrokerUnreachable(broker.server, "the answer was lost")
        return answer

    for owner, replaced, name in (
        (PublishPipeline, lossy_ack, on_ack.__name__),
        (Broker, lossy_publish, publish.__name__),
        (Broker, lossy_request, request.__name__),
    ):
        setattr(owner, name, replaced)


async def submit(server: str, namespace: str, task_id: str) -> None:
    async with connect(server, namespace) as client:
        await client.submit(call("drills", "aecho", value=task_id), task_id=task_id)


async def unique(server: str, namespace: str, key: str) -> None:
    async with connect(server, namespace) as client:
        await client.submit(
            call("drills", "aecho", value=key), When(unique=Unique(key=key, on_conflict="existing"))
        )


async def large(server: str, namespace: str, task_id: str) -> None:
    async with connect(server, namespace) as client:
        await client.submit(call("drills", "turn", text=large_text(task_id)), task_id=task_id)


async def redrive(server: str, namespace: str, task_id: str) -> None:
    async with connect(server, namespace) as client:
        await client.dead_letters.redrive("drills", task_id)


async def cancel(server: str, namespace: str, task_id: str) -> None:
    async with connect(server, namespace) as client:
        sys.stdout.write(str(await client.handle("drills", task_id).cancel()))


ROLES: Final = {each.__name__: each for each in (submit, unique, large, redrive, cancel)}


def main(role: str, *arguments: str) -> int:
    """Play a role, failing where told."""
    lose_answers()
    hook(passed)
    if role == "worker":
        from galley_worker.main import main as work  # noqa: PLC0415 - the other roles start without it
        from galley_worker.runners.socket_folder import socket_folder  # noqa: PLC0415 - as above

        with socket_folder():
            return work()
    asyncio.run(ROLES[role](*arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
