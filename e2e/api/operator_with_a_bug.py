"""An operator with a bug: the first task that it gives to NATS raises what it does not expect."""

import sys

from galley.failpoint import hook
from galley_operator.main import main


def _fail_once(name: str) -> None:
    if name == "publish.before_send":
        hook(None)
        raise ZeroDivisionError("a bug, for the drill")


if __name__ == "__main__":
    hook(_fail_once)
    sys.exit(main())
