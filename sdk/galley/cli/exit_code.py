"""Exit codes of the commands."""

from enum import IntEnum

from galley.cli.errors import Misuse, NoServer, QueueChanged, QueueNotServed
from galley.encryption.errors import KeyServiceUnavailable
from galley.errors import GalleyError, Invalid, Refused, ResultTimeout


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    MISUSE = 2
    REFUSED = 3
    """A queue refused; nothing was stored."""
    UNREACHABLE = 4
    WAIT_TIMED_OUT = 124
    """As of timeout(1); the task continues."""
    INTERRUPTED = 130


EXIT_CODES_IN_WORDS = "0 done, 1 failed, 2 misuse, 3 refused, 4 server unreachable, 124 wait timed out"


def exit_code_of(error: GalleyError) -> ExitCode:
    """Return the exit code an error ends a command with."""
    # It comes with nats-py, which the help, completions and commands of other packages do not need.
    from galley.broker.errors import (  # noqa: PLC0415
        BrokerSilent,
        BrokerTooOld,
        BrokerUnreachable,
        TlsFailed,
    )

    match error:
        case Misuse() | Invalid():
            return ExitCode.MISUSE
        case Refused() | QueueNotServed() | QueueChanged():
            return ExitCode.REFUSED
        case BrokerUnreachable() | BrokerSilent() | BrokerTooOld() | TlsFailed() | NoServer():
            return ExitCode.UNREACHABLE
        case KeyServiceUnavailable():
            return ExitCode.UNREACHABLE
        case ResultTimeout():
            return ExitCode.WAIT_TIMED_OUT
        case _:
            return ExitCode.FAILED
