"""The credentials of `galley backup` read all streams and change nothing, whatever is tried with them."""

import re
from pathlib import Path

import pytest

from galley.backup.destination import Folder
from galley.backup.errors import RestoreIncomplete
from galley.backup.restore import Restore
from galley.backup.take import take_backup
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.errors import NotAllowed
from galley.broker.permissions import backup_permissions
from galley.broker.publish import Publisher
from tests.integration.credentials.test_rights import PUBLISH, SUBSCRIBE, Judged, covers
from tests.support.backups import KEY, subjects_in
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.guarded_nats import GuardedNats

READS = {
    "$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.GW_ns_mine", "$JS.API.STREAM.INFO.GS_ns_mine",
    "$JS.API.STREAM.INFO.GR_ns_mine", "$JS.API.STREAM.INFO.GW_ns_theirs", "$JS.API.STREAM.MSG.GET.GW_ns_mine",
    "$JS.API.STREAM.MSG.GET.GR_ns_mine", "$JS.API.STREAM.MSG.GET.GD_ns_mine", "$JS.API.DIRECT.GET.GW_ns_mine",
    "$JS.API.DIRECT.GET.GS_ns_mine", "$JS.API.DIRECT.GET.GW_ns_theirs", "$JS.API.DIRECT.GET.GR_ns_mine",
    "$JS.API.DIRECT.GET.GR_ns", "$JS.API.CONSUMER.LIST.GW_ns_mine",
}  # fmt: skip
READ = re.compile(
    r"\$JS\.API\.(INFO|STREAM\.LIST|(STREAM\.(INFO|MSG\.GET)|CONSUMER\.LIST|DIRECT\.GET)\.[^.]+)"
)
"""All it may ask: about one stream, and nothing that changes one."""

MORE = ("$JS.API.STREAM.SNAPSHOT.GR_ns", "$JS.API.STREAM.RESTORE.evil", "$JS.API.CONSUMER.LIST.GW_ns_mine",
        "$JS.API.CONSUMER.CREATE.GR_ns.evil", "$JS.API.STREAM.PURGE.GW_ns_mine")  # fmt: skip


@pytest.fixture
async def creds(own_guarded_nats: GuardedNats) -> Path:
    async with own_guarded_nats.operator() as operator:
        for name in ("mine", "theirs"):
            layout = a_queue(name, namespace="ns")
            await ensure(operator, layout)
            for _ in range(3):
                await Publisher(operator).publish(an_address(of=layout), an_envelope())
    return await own_guarded_nats.write_backup_creds()


async def test_it_publishes_and_hears_what_the_table_says(own_guarded_nats: GuardedNats, creds: Path) -> None:
    async with Broker(own_guarded_nats.url, name="test", credentials=creds) as broker:
        judged = Judged(broker)
        passed = {subject for subject in (*PUBLISH, *MORE) if await judged.publishes(subject)}
        heard = {subject for subject in (*SUBSCRIBE, "_INBOX.backup.x") if await judged.subscribes(subject)}
    assert passed == {subject for subject in (*PUBLISH, *MORE) if READ.fullmatch(subject)}
    assert passed >= READS
    assert heard == {"_INBOX.backup.x"}
    patterns = backup_permissions().publish
    assert [each for each in patterns if not any(covers(each, subject) for subject in READS)] == []


async def test_no_answer_reaches_a_stream_or_another_account(
    own_guarded_nats: GuardedNats, creds: Path
) -> None:
    layout = a_queue("mine", namespace="ns")
    targets = [
        topology.task_subject(an_address(of=layout)),
        topology.record_subject(an_address(of=layout)),
        *(f"$JS.API.STREAM.{verb}.GW_ns_mine" for verb in ("PURGE", "DELETE")),
        "$SYS.REQ.CLAIMS.DELETE",
    ]
    body = b'{"seq":1,"next_by_subj":">","batch":10}'
    async with own_guarded_nats.operator() as operator:
        before = await subjects_in(operator)
        heard: list[str] = []

        async def hear(message: object) -> None:
            heard.append(getattr(message, "subject", ""))

        for target in targets:
            await operator.subscribe(target, hear)
        await operator.reached(5)
        async with Broker(own_guarded_nats.url, name="test", credentials=creds) as broker:
            for request in READS:
                for target in targets:
                    broker.publish(request, body, target)
            await broker.api("look", "INFO")
            await broker.reached(5)
        await operator.api("look", "INFO")
        assert heard == []
        assert await subjects_in(operator) == before


async def test_a_backup_is_taken_with_it_and_nothing_can_be_restored(
    own_guarded_nats: GuardedNats, creds: Path, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    async with Broker(own_guarded_nats.url, name="test", credentials=creds) as broker:
        summary, _ = await take_backup(broker, folder, KEY)
        assert summary.messages == 6
        restore = Restore(broker, folder, summary.name, [KEY], namespaces={"ns": "other"})
        outline = await restore.outline()
        with pytest.raises(RestoreIncomplete) as error:
            await restore.run(outline)
        assert isinstance(error.value.__cause__, NotAllowed)
