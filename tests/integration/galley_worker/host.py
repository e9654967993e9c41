"""A process that hosts runners and is made to be killed: `python -m ...host FOLDER`.

It runs a handler of each kind, each of which leaves a file in the folder once it runs.
"""

import asyncio
import sys

from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler
from tests.integration.galley_worker.trials import ended, settings, start

FAMILY = """echo $$ > {0}/command
setsid sh -c 'echo $$ > {0}/stray; sleep 1000' &
env -i setsid sh -c 'echo $$ > {0}/bare; sleep 1000' &
sleep 1000"""
"""A program with children in the background that have left its session, one without its environment."""


async def main(folder: str) -> None:
    command = CommandHandler("family", ("sh", "-c", FAMILY.format(folder)))
    async with Runners(settings(command, concurrency=3)) as runners:
        works = [
            start(runners, "block", mark=f"{folder}/plain"),
            start(runners, "block_in_c", mark=f"{folder}/in_c"),
            start(runners, "a_wait", mark=f"{folder}/async"),
            start(runners, "start_bare", mark=f"{folder}/handler", number=f"{folder}/bare_of_handler"),
            start(runners, "family"),
        ]
        await asyncio.gather(*(ended(work) for work in works))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
