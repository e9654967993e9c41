"""Searches keep all they make, so there is no garbage to look for."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def without_search_for_garbage() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
