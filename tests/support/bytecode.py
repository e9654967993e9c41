"""A pytest plugin that keeps the modules of tests as pytest compiles them, with their asserts rewritten.

Rewriting them is half of what collecting costs, and each process of pytest-xdist collects all tests. They are
also kept where PYTHONDONTWRITEBYTECODE is set, but nothing else is: a test that changes a module and imports
it again within a second would get the old one.
"""

import os
import sys

sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """From here on, neither this process nor those it starts write any."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
