"""A pytest plugin that does not search for garbage among what collecting tests makes, which is all kept.

Python searches again and again while a heap grows: that is a fifth of what collecting costs, in each process
of pytest-xdist.
"""

import gc

gc.disable()


def pytest_collection_finish() -> None:
    """Set aside what there is, and search in what tests make."""
    gc.freeze()
    gc.enable()
