"""NATS with three servers: what each loss means, and the commands of the guide.

docs/operations/recovery.md tells it to users.
"""

from pathlib import Path

import pytest

from galley.backup.destination import Folder
from galley.backup.restore import Restore
from galley.backup.take import take_backup
from galley.broker.connection import Broker
from galley.broker.copies import copies, set_replicas
from galley.broker.ensure import ensure
from galley.broker.errors import BrokerError, BrokerRefused, BrokerSilent, BrokerUnreachable
from galley.broker.listing import all_streams
from galley.broker.publish import Publisher
from tests.support.backups import KEY, subjects_in
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.three_nats import formed, in_step, streams_of, three_nats

LAYOUT = a_queue("images", namespace="shop")
STREAMS = 9

pytestmark = pytest.mark.timeout(400)


async def submit(broker: Broker, count: int, patience: float = 60) -> None:
    publisher = Publisher(broker, patience)
    for _ in range(count):
        await publisher.publish(an_address(of=LAYOUT), an_envelope())


async def ensured(broker: Broker, replicas: int) -> None:
    """Make the queue as the operator does: again, if servers that are busy do not answer in time."""

    async def made() -> bool:
        try:
            await ensure(broker, LAYOUT, replicas)
        except BrokerUnreachable:
            return False
        return True

    await eventually(made, within=60)


async def placed(broker: Broker, replicas: int) -> list[str]:
    """Change the number of copies as soon as enough servers are known to be there."""
    changed: list[str] = []

    async def change() -> bool:
        try:
            changed.extend(await set_replicas(broker, replicas))
        except BrokerRefused as error:
            if "no suitable peers" not in str(error):
                raise
            return False
        return True

    await eventually(change, within=30)
    return changed


async def all_led(broker: Broker) -> bool:
    """Whether each stream has a leader, which a busy machine takes its time to elect."""
    try:
        return len([each async for each in all_streams(broker, complete=True)]) == STREAMS
    except BrokerError:
        return False


async def test_one_server_may_be_lost_with_its_disk_and_two_stop_until_one_returns(tmp_path: Path) -> None:
    with three_nats(tmp_path) as servers:
        servers.start(0, 1, 2)
        async with servers.broker() as broker:
            await eventually(lambda: formed(broker), within=60)
            await ensured(broker, 3)
            await submit(broker, 100)
            await eventually(lambda: in_step(broker, 3, STREAMS), within=60)
            assert all(each.complete for each in await copies(broker))

            # One is lost: nothing stops.
            servers.kill(2)
            await submit(broker, 100)

            # It comes back with an empty disk: the others fill it.
            servers.lose_disk(2)
            servers.start(2)
            await eventually(lambda: in_step(broker, 3, STREAMS), within=60)
            assert len((await subjects_in(broker))["GW_shop_images"]) == 200

            # Two are lost: what was accepted is kept, and nothing is accepted until one of them is back.
            servers.kill(1, 2)
            with pytest.raises(BrokerSilent):
                await submit(broker, 1, patience=2)
            servers.start(1)
            await submit(broker, 50)


async def test_one_server_becomes_three_by_a_backup_and_a_restore(tmp_path: Path, folder: Folder) -> None:
    with three_nats(tmp_path) as servers:
        servers.start(0, alone=True)
        async with servers.broker() as broker:
            await ensured(broker, 1)
            await submit(broker, 100)
            before = await subjects_in(broker)
            with pytest.raises(BrokerRefused, match="replicas > 1 not supported in non-clustered mode"):
                await set_replicas(broker, 3)
            summary, _ = await take_backup(broker, folder, KEY)
        servers.kill(0)
        # The cluster does not take its streams over, and they can be in the way of new ones.
        servers.lose_disk(0)
        servers.start(0, 1, 2)
        async with servers.broker() as broker:
            await eventually(lambda: formed(broker), within=60)
            restore = Restore(broker, folder, summary.name, [KEY], replicas=3)
            await restore.run(await restore.outline())
            assert await subjects_in(broker) == before
            await eventually(lambda: in_step(broker, 3, STREAMS - 2), within=60)


async def test_the_copies_of_streams_are_changed_while_tasks_are_there(tmp_path: Path) -> None:
    with three_nats(tmp_path) as servers:
        servers.start(0, 1, 2)
        async with servers.broker() as broker:
            await eventually(lambda: formed(broker), within=60)
            await ensured(broker, 1)
            await submit(broker, 100)
            before = await subjects_in(broker)
            assert len(await placed(broker, 3)) == STREAMS
            assert await set_replicas(broker, 3) == []
            await eventually(lambda: in_step(broker, 3, STREAMS), within=60)
            servers.kill(1)
            await eventually(lambda: all_led(broker), within=100)
            assert await subjects_in(broker) == before
            # What is there keeps its number of copies, whatever the chart says.
            await ensured(broker, 1)
            assert {each["config"]["num_replicas"] for each in await streams_of(broker)} == {3}
