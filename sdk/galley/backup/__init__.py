"""Backups: all streams, TaskQueues and Tasks in one encrypted archive, and the way back.

    async with Broker("nats://127.0.0.1:4222", name="backup") as broker:
        destination, key = destination_at("/backups"), read_key(Path("backup.key"))
        summary, _ = await take_backup(broker, destination, key)
        restore = Restore(broker, destination, summary.name, [key])
        await restore.run(await restore.outline())

It needs the extra `operator`: `pip install "galley-tasks[operator]"`.
"""

from galley.backup.destination import Destination, destination_at
from galley.backup.restore import Restore
from galley.backup.sealing import Key, read_key
from galley.backup.take import Retention, take_backup
from galley.backup.verify import verify_archive

__all__ = [
    "Destination", "Key", "Restore", "Retention", "destination_at", "read_key", "take_backup",
    "verify_archive",
]  # fmt: skip
