"""Text of others, as terminals and pages show it."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley.shown import safe, safe_json

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    "text",
    [
        "grün 日本 🍾 'quotes' \\ tab\tand\nline",
        FAMILY,
        "\u2764\ufe0f\u200d\U0001f525",
        "1\ufe0f\u20e3 #\ufe0f\u20e3",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
    ],
)
def test_what_a_reader_sees_is_left_alone(text: str) -> None:
    assert safe(text) == text
    assert safe_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada\u200b", r"ada\u200b"),
        ("ad\u00ada", r"ad\xada"),
        ("\ufeffada", r"\ufeffada"),
        ("ada\u200d", r"ada\u200d"),
        ("日\u200d\u200d本", r"日\u200d\u200d本"),
        ("x\u200c日", r"x\u200c日"),
        ("ada\ufe0f", r"ada\ufe0f"),
        ("task-1\ufe0f", r"task-1\ufe0f"),
        ("日\ufe0f\ufe0f", "日\ufe0f" + r"\ufe0f"),
        ("ok\U000e0068\U000e0069", r"ok\U000e0068\U000e0069"),
        ("\u3164", r"\u3164"),
        ("a\u202eb", r"a\u202eb"),
        ("a\x1b[2J\x9b\r", r"a\x1b[2J\x9b\x0d"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_hides_is_spelled_out(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.text())
def test_nothing_of_its_kind_is_left_and_json_means_the_same(text: str) -> None:
    left = safe(text)
    assert safe(left) == left
    # Of the invisible ones only joiners stay, and signs that are written before numbers, which have a shape.
    hidden = {each for each in left if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert all(
        each in "\t\n\u200c\u200d" or 0x600 <= ord(each) <= 0x8FF or ord(each) > 0xFFFF for each in hidden
    )
    written = json.dumps(text, ensure_ascii=False)
    assert json.loads(safe_json(written)) == json.loads(written)
