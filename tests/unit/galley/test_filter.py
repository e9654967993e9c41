"""Filters: what they pass, and what is refused when they are declared."""

import pytest

from galley.errors import FilterInvalid
from galley.filter import FILTER_LENGTH, FilterFailed, parse

EVENT = {
    "id": "1", "source": "shop", "type": "reading", "subject": "", "key": "a", "topic": "t",
    "attributes": {"region": "eu", "size": 5, "hot": True},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ('type == "reading" && attributes.region in ["us", "eu"]', True),
        ("attributes.size > 3 && attributes.size <= 5", True),
        ("attributes.size < 4.5 || !attributes.hot", False),
        ('key.startsWith("b") || source.contains("ho") && source.endsWith("p")', True),
        ('has(attributes.region) && !has(attributes.nothing)', True),
        ('attributes["region"] != \'us\'', True),
        ('has(attributes.none) && attributes.none == "x"', False),
        ('attributes.none == "x" || key == "a"', True),
        ("attributes.hot == 1", False),
        ('key in []', False),
        (r'"a\"b\n" == "a\"b\n"', True),
    ],
)  # fmt: skip
def test_a_filter_passes_what_it_says(text: str, passes: bool) -> None:
    assert parse(text).matches(EVENT) is passes


@pytest.mark.parametrize(
    "text", ["attributes.none == 1", "attributes.region > 3", "key", "!key", "attributes.hot < true",
             'attributes.size.startsWith("a")', '"a" && true'],
)  # fmt: skip
def test_a_filter_that_cannot_tell_says_so(text: str) -> None:
    with pytest.raises(FilterFailed):
        parse(text).matches(EVENT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type ==", "a value is missing"),
        ("nosuch == 1", "there is no 'nosuch' in an event"),
        ('"open', "cannot read"),
        ('type == "x" extra', "'extra' is not expected"),
        ("attributes.all(a, true)", "is not expected"),
        ('type.matches("a+")', "there is no function 'matches'"),
        ("type.startsWith(key)", "takes a text"),
        ("attributes[region]", "name of an attribute"),
        ("attributes.3", "cannot read|name of an attribute"),
        ("key in [key]", "a list has"),
        ("(" * 100 + "true" + ")" * 100, "nested deeper"),
        ("!" * 100 + "true", "nested deeper"),
        ("a" * (FILTER_LENGTH + 1), "the limit is"),
        ("(true", "is missing"),
        ("== 1", "is not expected"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(FilterInvalid, match=problem):
        parse(text)
