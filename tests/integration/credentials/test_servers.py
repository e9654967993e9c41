"""Servers are asked by the system account what they have loaded, and are told to load again."""

import pytest

from galley.broker.errors import BrokerRefused, BrokerUnreachable
from tests.support.guarded_nats import GuardedNats


async def test_a_server_tells_its_tags_and_takes_new_ones(own_guarded_nats: GuardedNats) -> None:
    config = own_guarded_nats.folder / "nats.conf"
    first = config.read_text()
    async with own_guarded_nats.directory() as directory:
        [(server, tags)] = (await directory.tags()).items()
        assert tags == frozenset()
        config.write_text(first + 'server_tags: ["tls:1"]\n')
        await directory.reload(server)
        assert await directory.tags() == {server: frozenset({"tls:1"})}
        # What cannot be loaded is refused, and what was there stays.
        config.write_text(first + 'server_tags: ["tls:2"]\ntls { cert_file: "/nowhere" }\n')
        with pytest.raises(BrokerRefused, match="load its configuration"):
            await directory.reload(server)
        assert await directory.tags() == {server: frozenset({"tls:1"})}
        own_guarded_nats.kill()
        with pytest.raises(BrokerUnreachable, match="system account, servers"):
            await directory.tags()
