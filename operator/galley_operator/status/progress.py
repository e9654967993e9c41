"""The progress of Tasks, from the broker to what is given to react."""

import asyncio
from collections.abc import Callable

from galley.address import TaskAddress
from galley.broker import notes
from galley.broker.connection import Broker
from galley.encryption import EncryptionError
from galley.note import Progress
from galley_operator.tasks.active_tasks import ActiveTasks


class ProgressNews:
    """Hears of the progress of tasks over one subscription, for as long as `run` runs."""

    def __init__(
        self,
        broker: Broker,
        tasks: ActiveTasks,
        react: Callable[[TaskAddress, Progress], None],
        namespaces: tuple[str | None, ...] = (None,),
    ) -> None:
        """Args: namespaces: of the tasks; None is all."""
        self._broker, self._tasks, self._react = broker, tasks, react
        self._where = (namespaces[0] if len(namespaces) == 1 else None) or "*"
        self._missed = asyncio.Event()

    async def run(self) -> None:
        """Pass on until cancelled; at the beginning and after each reconnection, what was said meanwhile.

        Raises:
            BrokerError: if the broker does not answer; run it again.
        """

        async def reconnected() -> None:
            self._missed.set()

        forget = self._broker.on_reconnect(reconnected)
        try:
            async with notes.hearing_progress(self._broker, self._react, self._where):
                self._missed.set()
                while True:
                    await self._missed.wait()
                    self._missed.clear()
                    await self._catch_up()
        finally:
            forget()

    async def _catch_up(self) -> None:
        """Read how far those are that said something before; others are heard when they say more."""
        for task in self._tasks:
            if task.progress is None or task.ended:
                continue
            try:
                progress = await notes.progress_of(self._broker, task.address)
            except EncryptionError:
                continue  # its queue was encrypted meanwhile
            if progress is not None:
                self._react(task.address, progress)
