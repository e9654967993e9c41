"""Every named place in the code is one that a test makes a process fail at, and costs nothing otherwise."""

import ast

from galley import failpoint
from tests.failpoints.places import (
    CLIENT,
    DATA_CLIENT,
    DATA_WORKER,
    FLEET,
    LETTER,
    SCALER,
    SWEEP,
    TICKER,
    WORKER,
)
from tests.support.source import SOURCES


def named() -> list[str]:
    """Return the names of all places in the code."""
    names = []
    for path in SOURCES:
        if "failpoint(" not in (text := path.read_text("utf-8")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: {ast.unparse(node)}"
                names.append(str(argument.value))
    return names


def test_every_place_is_driven_by_a_test() -> None:
    of_data = {*DATA_WORKER, *DATA_CLIENT, *TICKER, *SWEEP, LETTER}
    assert sorted(set(named())) == sorted({*WORKER, *CLIENT, *SCALER, *FLEET, *of_data})


def test_nothing_is_hooked_in_unless_a_test_does_it() -> None:
    assert failpoint._hook is None
    failpoint.failpoint("settle.before_ack")
