"""What happens to tests whose tier cannot run here: a failure where CI runs them, a loud skip elsewhere."""

import os
from typing import NoReturn

import pytest


def cannot_run(what: str, why: str) -> NoReturn:
    """Fail with CI=true, where skips are not read; elsewhere skip, and say what was not tested and why."""
    message = f"{what} CANNOT RUN HERE: {why}"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
