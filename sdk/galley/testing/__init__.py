"""For tests of programs that use Galley: clients that run tasks in memory, by a clock of their own.

Handlers run in the process of the test. Input and result are encoded as JSON and back by the code that
producers and workers use, and retries, pauses, deadlines and own ids follow the same rules. There is no
broker, no worker and no waiting: a task that is due runs when it is submitted, and `result()` moves the clock
to the end of its task.
"""

from galley.testing.async_clients import AsyncEagerClient, AsyncEagerHandle
from galley.testing.clients import EagerClient, EagerHandle
from galley.testing.letters import AsyncEagerDeadLetters, EagerDeadLetters
from galley.testing.schedules import AsyncEagerSchedules, EagerSchedules
from galley.testing.tasks import START

__all__ = [
    "START", "AsyncEagerClient", "AsyncEagerDeadLetters", "AsyncEagerHandle", "AsyncEagerSchedules",
    "EagerClient", "EagerDeadLetters", "EagerHandle", "EagerSchedules",
]  # fmt: skip
