"""The licences of what Galley ships, from its bills of materials, against a list of those allowed."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tools.supply.sbom import Bill

LIST: Final = Path(__file__).parent / "licences.toml"
_WORDS: Final = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]")


class Licensed(NamedTuple):
    """A component and what it says of its licence."""

    name: str
    version: str
    ecosystem: str
    licences: tuple[str, ...]
    """Names of SPDX; empty if it names none."""
    problem: str = ""
    """Why it may not be shipped."""


def policy() -> dict[str, Any]:
    """Return the list of allowed licences, with what it says of packages that name none."""
    return tomllib.loads(LIST.read_text())


def licensed(bills: Mapping[str, Bill], rules: Mapping[str, Any]) -> list[Licensed]:
    """Return each component of all bills once, with what is wrong with its licence."""
    found = {
        (each["name"], each.get("version", "")): each
        for bill in bills.values()
        for each in bill["components"]
    }
    return [_looked_at(found[key], rules) for key in sorted(found)]


def _looked_at(component: Bill, rules: Mapping[str, Any]) -> Licensed:
    name, version = component["name"], component.get("version", "")
    ecosystem = component.get("purl", "pkg:other/").removeprefix("pkg:").partition("/")[0]
    named = tuple(dict.fromkeys(_named(component, rules["aliases"])))
    if ecosystem == "deb":
        section = next(each["value"] for each in component["properties"] if each["name"] == "debian:section")
        problem = (
            f"it is in {section.partition('/')[0]}" if section.startswith(("non-free", "contrib")) else ""
        )
        return Licensed(name, version, ecosystem, named, problem)
    if not named:
        named = tuple(rules["read_in_sources"].get(name, ()))
    unknown = [each for each in named if each not in rules["allowed"]]
    problem = "it names no licence" if not named else ""
    if unknown:
        problem = f"not on the list: {', '.join(unknown)}"
    return Licensed(name, version, ecosystem, named, problem)


def _named(component: Bill, aliases: Mapping[str, str]) -> Iterator[str]:
    for each in component.get("licenses", ()):
        licence = each.get("license", {})
        text = each.get("expression") or licence.get("id") or licence.get("name") or ""
        if component.get("purl", "").startswith("pkg:deb/"):
            yield text
            continue
        if text.startswith("License :: DFSG"):
            continue
        for word in _WORDS.split(aliases.get(text, text)):
            if word.strip():
                yield aliases.get(word.strip(), word.strip())
