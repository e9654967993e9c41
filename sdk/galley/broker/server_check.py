"""Whether a server can do what Galley needs."""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from nats.errors import NoRespondersError

from galley.broker.errors import BrokerRefused, BrokerTooOld
from galley.broker.lean_client import LeanClient
from galley.broker.topology import MIN_SERVER

NOT_ENABLED: Final = 10039
"""Error of an account without JetStream."""
NO_LEADER: Final = 10008
"""Error of servers that have elected none of them yet, or lost too many ("temporarily unavailable")."""
_ENABLED_SECONDS: Final = 0.2
_INFO_SECONDS: Final = 2.0


async def check_jetstream(nats: LeanClient, server: str, note: Callable[[str], None]) -> None:
    """Check that a server is new enough and has JetStream; returns when it answers.

    Args:
        nats: the connection to it.
        server: its address, for people.
        note: called with what it says while it has no leader; the caller's own limit ends the wait.

    Raises:
        BrokerTooOld: it has no message schedules, or no JetStream.
        BrokerRefused: it answers with another error.
    """
    version = nats.connected_server_version
    found = version.major, version.minor, version.patch
    if found < MIN_SERVER:
        raise BrokerTooOld(server, f"nats-server {_dotted(found)}", _dotted(MIN_SERVER))
    while True:
        try:
            answer = await nats.request("$JS.API.INFO", b"", timeout=_INFO_SECONDS)
        except NoRespondersError:
            without = f"nats-server {_dotted(found)} without JetStream"
            raise BrokerTooOld(server, without, _dotted(MIN_SERVER)) from None
        except TimeoutError:
            # A cluster without a leader yet drops the request instead of answering late.
            continue
        error = msgspec.json.decode(answer.data).get("error")
        if not error:
            return
        if error.get("err_code") not in {NOT_ENABLED, NO_LEADER}:
            raise BrokerRefused("use JetStream", error.get("err_code", 0), error.get("description", ""))
        # A server of a cluster says so of every account until it has found the others.
        note(str(error.get("description")))
        await asyncio.sleep(_ENABLED_SECONDS)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
