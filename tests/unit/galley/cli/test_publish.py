"""`galley publish`: what is refused before there is a connection."""

from argparse import ArgumentParser

import pytest

from galley.cli.errors import Misuse
from galley.cli.publish import command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--header", "ce-id: 1"], "needs --cloudevent"),
        (["--header", "no header", "--cloudevent", "/dev/null"], "is no header"),
        (["--cloudevent", "/nowhere.json"], "cannot be read"),
        (["--data", "{"], "is not JSON"),
        (["--attribute", "x"], "is no attribute"),
    ],
)
async def test_wrong_words_are_told(words: list[str], told: str) -> None:
    parser = ArgumentParser()
    command.arguments(parser)
    with pytest.raises(Misuse, match=told):
        await command.run(parser.parse_args(["orders", *words]), None)  # type: ignore[arg-type]
