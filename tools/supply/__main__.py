"""`python -m tools.supply COMMAND`: what the targets of the Makefile run."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from testcluster.images.build import archives
from testcluster.images.image import DOCKERFILES, GATEWAY, NATS, OPERATOR, WORKER
from tools.supply import advisories, licences, lint_chart, provenance, sbom, tools
from tools.supply.sbom import FOLDER
from tools.supply.tools import ROOT, ToolFailed


def _tools() -> int:
    tools.kube_score()
    for name in ("lint", "supply"):
        tools.environment(name)
    return 0


def _lint_chart() -> int:
    lines, well = lint_chart.lint()
    print(*lines, sep="\n")
    return 0 if well else 1


def make_bills(folder: Path = FOLDER) -> None:
    """Write bills and provenance of the Python package, of Galley's images and of NATS.

    Raises:
        ToolFailed: if a tool cannot be installed or fails.
    """
    sbom.write("galley-tasks", sbom.of_package(), folder)
    with tempfile.TemporaryDirectory() as scratch:
        command = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", scratch)
        tools.run(*command, settings={"SOURCE_DATE_EPOCH": "1700000000"})
        [wheel] = Path(scratch).glob("*.whl")
        provenance.write("galley-tasks", provenance.of_package(wheel), folder)
    for name, archive in archives([OPERATOR.name, WORKER.name, GATEWAY.name, NATS]).items():
        sbom.write(name, sbom.of_image(name, archive), folder)
        if name in DOCKERFILES:
            provenance.write(name, provenance.of_image(DOCKERFILES[name], archive), folder)


def _sbom() -> int:
    make_bills()
    for name, bill in sbom.read().items():
        kinds = ", ".join(f"{many} {kind}" for kind, many in sorted(sbom.count([bill]).items()))
        print(f"{(FOLDER / name).relative_to(ROOT)}.cdx.json: {kinds}")
    for path in sorted(FOLDER.glob("*.provenance.json")):
        print(path.relative_to(ROOT))
    return 0


def _licences() -> int:
    found = licences.licensed(sbom.read(), licences.policy())
    for each in found:
        if each.ecosystem != "deb":
            print(f"{each.name} {each.version}: {', '.join(each.licences)}")
    wrong = [each for each in found if each.problem]
    for each in wrong:
        print(
            f"error: {each.name} {each.version}: {each.problem}; see tools/supply/licences.toml",
            file=sys.stderr,
        )
    debian = sum(each.ecosystem == "deb" for each in found)
    print(f"{len(found)} components, {debian} of them of Debian's main archive; {len(wrong)} not allowed")
    return 1 if wrong else 0


def _audit() -> int:
    known, seen, code = advisories.known(), set(), 0
    for answer in advisories.ask_all(sbom.read()):
        note = f"; {answer.problem}" if answer.problem else ""
        print(f"{answer.source}: {answer.looked_at} components, {len(answer.found)} advisories{note}")
        for each in answer.found:
            seen.add(each.id)
            print(f"  {each.id} {each.name} {each.version}: {known.get(each.id, f'OPEN: {each.summary}')}")
            code = code if each.id in known else 1
    for gone in sorted(known.keys() - seen):
        print(f"advisories.toml: {gone} is not found any more: remove it")
        code = 1
    return code


_COMMANDS: Final[dict[str, Callable[[], int]]] = {
    "tools": _tools,
    "lint-chart": _lint_chart,
    "sbom": _sbom,
    "licences": _licences,
    "audit": _audit,
}


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools.supply", description=sys.modules["tools.supply"].__doc__)
    parser.add_argument("command", choices=sorted(_COMMANDS))
    try:
        return _COMMANDS[parser.parse_args().command]()
    except ToolFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
