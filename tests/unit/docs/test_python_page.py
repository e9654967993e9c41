import re
from pathlib import Path

import galley

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "python.md"


def test_every_public_name_is_on_the_page_once() -> None:
    named = re.findall(r"^\.\. auto\w+:: galley\.(\w+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(galley.__all__)
