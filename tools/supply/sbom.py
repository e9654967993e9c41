"""Bills of materials (CycloneDX 1.6) of the Python package and of each image, written by `make sbom`.

cyclonedx-py reads the metadata of installed Python packages; the Debian packages of an image are those of its
own dpkg database, the Go modules of nats-server those its binary names. Each bill is checked against the
schema.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testcluster.images.image import BASE, DOCKERFILES
from tools.supply import archive as archives
from tools.supply import tools
from tools.supply.tools import ROOT, ToolFailed, run

FOLDER: Final = ROOT / "dist" / "sbom"
VERSION: Final = "1.6"
_VALIDATE: Final = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(f"not a valid CycloneDX document: {error}" if error else 0)
"""

Bill = dict[str, Any]


def of_package() -> Bill:
    """Return the bill of the Python package: what it needs, for workers, operator and `galley dev`.

    Raises:
        ToolFailed: if cyclonedx-py cannot be installed or fails.
    """
    words = ("environment", "--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library")
    bill = json.loads(_cyclonedx(*words, sys.executable))
    return needed(bill, closure("galley-tasks", ("worker", "operator", "local")))


def needed(bill: Bill, wanted: Iterable[str]) -> Bill:
    """Return a bill without what none of these packages needs, such as tools of the tests."""
    kept = {
        each["bom-ref"]: each for each in bill["components"] if canonicalize_name(each["name"]) in set(wanted)
    }
    root = bill["metadata"]["component"]["bom-ref"]
    depends = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept or each["ref"] == root
    ]
    return {**bill, "components": [*kept.values()], "dependencies": depends}


def closure(package: str, extras: Iterable[str]) -> set[str]:
    """Return the names of all packages that one needs here, itself left out."""
    seen: set[tuple[str, str]] = set()
    new = [(package, extra) for extra in ("", *extras)]
    while new:
        name, extra = new.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in metadata.requires(name) or ():
            needs = Requirement(text)
            if needs.marker is None or needs.marker.evaluate({"extra": extra}):
                new += [(canonicalize_name(needs.name), each) for each in ("", *needs.extras)]
    return {name for name, _ in seen} - {package}


def of_image(name: str, archive: Path) -> Bill:
    """Return the bill of an image in an archive.

    Raises:
        ToolFailed: if a tool cannot be installed or fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = archives.extracted(archive, Path(scratch))
        bill = _python_packages(folder)
        bill["components"] += [_debian(each) for each in archives.debian_packages(folder)]
        if (server := folder / "usr" / "local" / "bin" / "nats-server").exists():
            bill["components"] += go_modules(server)
    tag = DOCKERFILES[name].tag if name in DOCKERFILES else "e2e"
    bill["metadata"]["component"] = {
        "type": "container",
        "bom-ref": f"image:{name}",
        "name": name,
        "version": tag,
        "hashes": [{"alg": "SHA-256", "content": archives.image_id(archive)}],
        "purl": f"pkg:oci/{name}@sha256%3A{archives.image_id(archive)}",
    }
    depends = [each["bom-ref"] for each in bill["components"]]
    bill.setdefault("dependencies", []).append({"ref": f"image:{name}", "dependsOn": sorted(depends)})
    return bill


def _python_packages(folder: Path) -> Bill:
    sites = list((folder / "opt" / "galley").glob("lib/python*/site-packages"))
    if not sites:
        return {
            "bomFormat": "CycloneDX",
            "specVersion": VERSION,
            "version": 1,
            "metadata": {},
            "components": [],
        }
    # cyclonedx-py asks an interpreter where its packages are; the image's own one does not run here.
    answers = folder / "python"
    answers.write_text(f"#!/bin/sh\necho '{json.dumps([str(each) for each in sites])}'\n")
    answers.chmod(0o755)
    return dict(json.loads(_cyclonedx("environment", str(answers))))


def go_modules(binary: Path) -> list[Bill]:
    """Return the modules that a Go binary says it is made of.

    Raises:
        ToolFailed: if there is no `go`.
    """
    words = [line.split("\t") for line in run("go", "version", "-m", str(binary)).splitlines()]
    go = words[0][0].rpartition(" ")[2].removeprefix("go")
    modules = [(word[2], word[3]) for word in words if len(word) > 3 and word[1] in {"mod", "dep"}]
    return [
        {"type": "library", "bom-ref": f"go:{name}", "name": name, "version": version,
         "purl": f"pkg:golang/{name}@{version}"}
        for name, version in [*modules, ("stdlib", go)]
    ]  # fmt: skip


def _debian(package: archives.DebianPackage) -> Bill:
    where = f"arch={package.architecture}&distro=debian-{BASE.suite}"
    component: Bill = {
        "type": "library",
        "bom-ref": f"deb:{package.name}",
        "name": package.name,
        "version": package.version,
        "purl": f"pkg:deb/debian/{quote(package.name)}@{quote(package.version)}?{where}",
        "properties": [
            {"name": "debian:source", "value": package.source},
            {"name": "debian:section", "value": package.section},
        ],
    }
    if package.licences:
        component["licenses"] = [{"license": {"name": each}} for each in package.licences]
    return component


def checked(bill: Bill) -> str:
    """Return the text of a bill.

    Raises:
        ToolFailed: if it is not valid.
    """
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    run(str(tools.environment("supply") / "python"), "-c", _VALIDATE, given=text)
    return text


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(name: str, bill: Bill, folder: Path = FOLDER) -> Path:
    """Write a bill and return its place.

    Raises:
        ToolFailed: if it is not valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.cdx.json"
    path.write_text(checked(bill))
    return path


def read(folder: Path = FOLDER) -> dict[str, Bill]:
    """Return the bills that were written, by name.

    Raises:
        ToolFailed: if there are none.
    """
    found = {
        path.name.removesuffix(".cdx.json"): json.loads(path.read_text())
        for path in sorted(folder.glob("*.cdx.json"))
    }
    if not found:
        raise ToolFailed(f"there are no bills of materials in {folder}: run make sbom")
    return found


def count(bills: Iterable[Bill]) -> dict[str, int]:
    """Return how many components of each ecosystem there are."""
    found: dict[str, int] = {}
    for bill in bills:
        for each in bill["components"]:
            kind = each.get("purl", "pkg:other/").removeprefix("pkg:").partition("/")[0]
            found[kind] = found.get(kind, 0) + 1
    return found


def _cyclonedx(*words: str) -> str:
    program = tools.environment("supply") / "cyclonedx-py"
    options = ("--output-reproducible", "--spec-version", VERSION, "--output-format", "JSON")
    return run(str(program), *words[:1], *options, *words[1:])


def names(bills: Sequence[Bill]) -> set[tuple[str, str]]:
    """Return name and version of all components."""
    return {(each["name"], each.get("version", "")) for bill in bills for each in bill["components"]}


def components(bills: Mapping[str, Bill], ecosystem: str) -> set[tuple[str, str]]:
    """Return name and version of all components of an ecosystem, such as `pypi`."""
    return {
        (each["name"], each["version"])
        for bill in bills.values()
        for each in bill["components"]
        if each.get("purl", "").startswith(f"pkg:{ecosystem}/")
    }
