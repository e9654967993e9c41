"""Known vulnerabilities of what Galley ships, as far as advisories can be had.

| components | source | what it covers |
|---|---|---|
| Python | pip-audit, from the package index | up to date; an index that is a mirror often has no advisories |
| Python | `safety-db`, a package with a copy of an advisory list | up to the date of its release |
| Go | `golang.org/x/vulndb`, the Go vulnerability database as a module | up to the version that is locked |

A source that cannot be asked is reported as such, and never counts as "nothing found".
"""

import json
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from tools.supply import tools
from tools.supply.sbom import Bill, components
from tools.supply.tools import ToolFailed, run

VULNDB: Final = "golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018"
_KNOWN: Final = Path(__file__).parent / "advisories.toml"


class Advisory(NamedTuple):
    """A known vulnerability of a component."""

    id: str
    name: str
    version: str
    summary: str


class Answer(NamedTuple):
    """What one source says."""

    source: str
    looked_at: int
    found: tuple[Advisory, ...]
    problem: str = ""
    """Why it could not be asked, about some or all."""


def known() -> dict[str, str]:
    """Return the advisories that stand, by their id, and why."""
    return {each["id"]: " ".join(each["why"].split()) for each in tomllib.loads(_KNOWN.read_text())["known"]}


def ask_all(bills: Mapping[str, Bill]) -> list[Answer]:
    """Return what each source says of all components."""
    python, go = components(bills, "pypi"), components(bills, "golang")
    return [by_index(python), by_list(python), by_vulndb(go)]


def by_index(asked: Iterable[tuple[str, str]]) -> Answer:
    """Ask pip-audit, which asks the package index."""
    wanted = sorted(asked)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("".join(f"{name}=={version}\n" for name, version in wanted if name != "galley-tasks"))
        words = (
            "--requirement",
            str(path),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        )
        try:
            said = run(str(tools.environment("supply") / "pip-audit"), *words, accepted=(0, 1))
            answers = json.loads(said)["dependencies"]
        except (ToolFailed, ValueError, KeyError) as error:
            return Answer(
                "pip-audit", 0, (), f"it could not be asked: {str(error).strip().splitlines()[-1][:160]}"
            )
    unknown = [each["name"] for each in answers if "skip_reason" in each]
    known = [each for each in answers if "skip_reason" not in each]
    found = tuple(
        Advisory(one["id"], each["name"], each["version"], one.get("description", "")[:80])
        for each in known
        for one in each["vulns"]
    )
    problem = f"the index has no advisories for {len(unknown)} of {len(answers)} packages" if unknown else ""
    return Answer("pip-audit", len(known), found, problem)


def by_list(asked: Iterable[tuple[str, str]]) -> Answer:
    """Look into the copy of an advisory list that is a package itself."""
    [path] = tools.environment("supply").parent.glob("lib/python*/site-packages/safety_db/insecure_full.json")
    listed = json.loads(path.read_text())
    wanted = sorted(asked)
    found = [
        Advisory(one["id"], name, version, one["advisory"][:80])
        for name, version in wanted
        for one in listed.get(_normal(name), ())
        if any(_in(version, specs) for specs in one["specs"])
    ]
    return Answer("safety-db", len(wanted), tuple(found), "the list ends in July 2021")


def by_vulndb(asked: Iterable[tuple[str, str]]) -> Answer:
    """Look into the Go vulnerability database."""
    wanted = dict(asked)
    try:
        folder = Path(
            json.loads(run("go", "mod", "download", "-json", VULNDB, cwd=Path(tempfile.gettempdir())))["Dir"]
        )
    except (ToolFailed, FileNotFoundError) as error:
        return Answer("Go vulnerability database", 0, (), f"it could not be fetched: {error}")
    found = [
        Advisory(entry["id"], name, wanted[name], entry.get("summary", "")[:80])
        for entry in map(_read, sorted((folder / "data" / "osv").glob("*.json")))
        if "withdrawn" not in entry
        for affected in entry.get("affected", ())
        if (name := affected["package"]["name"]) in wanted
        and _affected(wanted[name], affected.get("ranges", ()))
    ]
    return Answer(f"Go vulnerability database ({VULNDB[25:33]})", len(wanted), tuple(found))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _affected(version: str, ranges: Iterable[Mapping[str, Any]]) -> bool:
    at = _version(version)
    for each in ranges:
        within = False
        for event in each["events"]:
            if "introduced" in event:
                within = within or at >= _version(event["introduced"])
            elif "fixed" in event and at >= _version(event["fixed"]):
                within = False
        if within:
            return True
    return False


def _version(text: str) -> Version:
    numbers = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return Version(numbers[1] if numbers else "0")


def _in(version: str, specs: str) -> bool:
    try:
        return Version(version) in SpecifierSet(specs)
    except (InvalidVersion, ValueError):
        return False


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
