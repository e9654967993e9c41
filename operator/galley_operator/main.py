"""One life of an operator process: from its environment to its exit code."""

import asyncio
import logging
import os
from typing import Final

from galley.error_group import ungrouped
from galley.errors import GalleyError
from galley.logs import log_as_json, switch_level_by_signal
from galley_operator.errors import LeadershipLost
from galley_operator.operator import Operator
from galley_operator.settings import OperatorSettings, read_settings

CANNOT_START: Final = 3
LOST: Final = 4

log = logging.getLogger("galley_operator")


async def _run(settings: OperatorSettings) -> None:
    switch_level_by_signal()
    operator = Operator(settings)
    operator.catch_signals()
    with ungrouped():
        await operator.run()


def main() -> int:
    """Run an operator until it is told to end; returns the exit code."""
    log_as_json("INFO")
    try:
        settings = read_settings(os.environ)
        log_as_json(settings.log_level, operator=settings.pod_name)
        asyncio.run(_run(settings))
    except LeadershipLost as lost:
        log.error("leadership lost", extra={"error": str(lost), "hint": lost.hint})  # noqa: TRY400
        return LOST
    except GalleyError as error:
        log.error("operator cannot work", extra={"error": str(error), "hint": error.hint})  # noqa: TRY400
        return CANNOT_START
    return 0
