"""What a command does for each of the things it was given."""

from collections.abc import Awaitable, Callable, Iterable

from galley.broker.errors import BrokerUnreachable
from galley.cli.exit_code import ExitCode, exit_code_of
from galley.cli.terminal import Terminal
from galley.errors import GalleyError


async def one_by_one(
    targets: Iterable[str], act: Callable[[str], Awaitable[None]], terminal: Terminal
) -> int:
    """Do something for each target; one for which it fails is told, and keeps no other from it.

    Returns:
        The exit code of the last one that failed.

    Raises:
        BrokerUnreachable: the others would only wait as long.
    """
    code = ExitCode.DONE
    for target in targets:
        try:
            await act(target)
        except BrokerUnreachable:
            raise
        except GalleyError as error:
            terminal.complain(error)
            code = exit_code_of(error)
    return code
