"""Provenance of each artifact, as an in-toto statement in the form of SLSA, written by `make sbom`.

It says what the build knows: the commit, the digests of the files that went in, and the digest of what came
out. It is not signed, and the builder is whichever machine ran the command; sign it where images are pushed.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from testcluster.images import build, cache
from testcluster.images.image import BASE, Image
from tools.supply import archive as archives
from tools.supply.sbom import FOLDER, sha256
from tools.supply.tools import ROOT, run

_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://slsa.dev/provenance/v1"
_BUILD_TYPE: Final = "https://galley.dev/build/{kind}/v1"
_BUILDER: Final = "https://galley.dev/builder/make-sbom"

Statement = dict[str, Any]


def of_image(image: Image, archive: Path) -> Statement:
    """Return the provenance of an image that was built from its Dockerfile."""
    files = [*image.files()]
    wheels = sorted(build.wheel_folder(image).glob("*.whl")) if image.locks else []
    base = cache.archive("base", BASE.content)
    return statement(
        "image",
        [
            {"name": image.reference, "digest": {"sha256": archives.image_id(archive)}},
            {"name": archive.name, "digest": {"sha256": sha256(archive)}},
        ],
        {
            "dockerfile": str(image.dockerfile.relative_to(ROOT)),
            "reference": image.reference,
            "base": {"suite": BASE.suite, "packages": list(BASE.packages)},
        },
        [commit(), *_files(files), *([_file(base, base.name)] if base.exists() else []), *_wheels(wheels)],
    )


def of_package(wheel: Path) -> Statement:
    """Return the provenance of the Python package."""
    sources = [ROOT / "pyproject.toml", ROOT / "requirements" / "build.txt"]
    subject = [{"name": wheel.name, "digest": {"sha256": sha256(wheel)}}]
    return statement("wheel", subject, {"backend": "hatchling"}, [commit(), *_files(sources)])


def statement(
    kind: str, subject: list[dict[str, Any]], parameters: dict[str, Any], inputs: list[dict[str, Any]]
) -> Statement:
    """Return the statement that these artifacts were made from these inputs."""
    return {
        "_type": _STATEMENT,
        "subject": subject,
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE.format(kind=kind),
                "externalParameters": parameters,
                "resolvedDependencies": inputs,
            },
            "runDetails": {
                "builder": {"id": _BUILDER},
                "metadata": {"finishedOn": datetime.now(UTC).isoformat(timespec="seconds")},
            },
        },
    }


def commit() -> dict[str, Any]:
    """Return the commit of the sources, and whether files differ from it."""
    head = run("git", "rev-parse", "HEAD").strip()
    changed = [line[3:] for line in run("git", "status", "--porcelain").splitlines()]
    found: dict[str, Any] = {"name": "galley", "digest": {"gitCommit": head}}
    return found | ({"annotations": {"changedFiles": changed}} if changed else {})


def write(name: str, made: Statement, folder: Path = FOLDER) -> Path:
    """Write a statement and return its place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.provenance.json"
    path.write_text(json.dumps(made, indent=1) + "\n")
    return path


def _files(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [_file(path, str(path.relative_to(ROOT))) for path in paths]


def _wheels(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [_file(path, path.name) for path in paths]


def _file(path: Path, name: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256(path)}}
