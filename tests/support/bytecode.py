"""A pytest plugin that keeps the modules of tests as pytest compiles them, with their asserts rewritten.

Rewriting them is half of what collecting costs, and each process of pytest-xdist collects all tests. Where
none are kept yet, each process first imports a part of them, and finds those of the others when it collects.

They are also kept where PYTHONDONTWRITEBYTECODE is set, but nothing else is: a test that changes a module and
imports it again within a second would get the old one.
"""

import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

sys.dont_write_bytecode = False

_TESTS: Final = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Rewrite the files of tests that are this process's part, unless they are kept."""
    if (worker := getattr(session.config, "workerinput", None)) is None:
        return
    folders = [session.config.invocation_params.dir / each.partition("::")[0] for each in session.config.args]
    files = sorted(file for folder in folders for file in folder.rglob("test_*.py") if _TESTS in file.parents)
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        if not _kept(file):
            with suppress(Exception, pytest.skip.Exception):  # collecting tells of it
                importlib.import_module(".".join(file.relative_to(_TESTS.parent).with_suffix("").parts))


def _kept(file: Path) -> bool:
    folder = Path(importlib.util.cache_from_source(str(file))).parent
    return any(folder.glob(f"{file.stem}.*-pytest-*.pyc"))


def pytest_collection_finish() -> None:
    """From here on, neither this process nor those it starts write any."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
