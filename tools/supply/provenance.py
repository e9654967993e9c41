"""Provenance of each artifact, as an in-toto statement in the form of SLSA, written by `make sbom`.

It says what the build knows: the commit, the digests of the files that went in, and the digest of what came
out. The builder is whichever machine ran the command. With `GALLEY_SIGNING_KEY`, a file with an Ed25519 key
in PEM, each statement is signed, as a DSSE envelope beside it. A transparency log or a certificate authority
would need a network, so who checks a signature needs the public key from you.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from testcluster.images import build, cache
from testcluster.images.image import BASE, Image
from tools.supply import archive as archives
from tools.supply.sbom import FOLDER, sha256
from tools.supply.tools import ROOT, ToolFailed, run

_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://slsa.dev/provenance/v1"
_BUILD_TYPE: Final = "https://galley.dev/build/{kind}/v1"
_BUILDER: Final = "https://galley.dev/builder/make-sbom"

SIGNING_KEY: Final = "GALLEY_SIGNING_KEY"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

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
    body = json.dumps(made, indent=1).encode() + b"\n"
    path.write_bytes(body)
    if key := os.environ.get(SIGNING_KEY):
        envelope = json.dumps(signed(body, Path(key)), indent=1)
        path.with_suffix(".dsse.json").write_text(envelope + "\n")
    return path


def signed(body: bytes, key: Path) -> dict[str, Any]:
    """Return a statement in a DSSE envelope.

    Raises:
        ToolFailed: if the file is no Ed25519 key in PEM without a password.
    """
    try:
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ToolFailed(f"{SIGNING_KEY}: {key} cannot be read: {error}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ToolFailed(f"{SIGNING_KEY}: {key} is no Ed25519 key: openssl genpkey -algorithm ed25519")
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [
            {
                "keyid": hashlib.sha256(public).hexdigest(),
                "sig": base64.b64encode(private.sign(signed_bytes(body))).decode(),
            }
        ],
    }


def signed_bytes(body: bytes) -> bytes:
    """Return what a signature is about: the type and the statement, each with its length (PAE of DSSE)."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def _files(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [_file(path, str(path.relative_to(ROOT))) for path in paths]


def _wheels(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [_file(path, path.name) for path in paths]


def _file(path: Path, name: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256(path)}}
