"""What an image's archive holds: its Debian packages, and the metadata of its Python packages."""

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

_WANTED: Final = re.compile(
    r"(?:\./)?(?:var/lib/dpkg/status|usr/share/doc/[^/]+/copyright"
    r"|opt/galley/lib/python[^/]+/site-packages/[^/]+\.dist-info/.+|usr/local/bin/nats-server)"
)
_LICENCE: Final = re.compile(r"(?m)^License:[ \t]*(\S[^\n]*)$")


class DebianPackage(NamedTuple):
    """A package of the distribution."""

    name: str
    version: str
    architecture: str
    source: str
    section: str
    licences: tuple[str, ...]
    """As its copyright file names them; empty if that is prose."""


def image_id(archive: Path) -> str:
    """Return the digest of the image's configuration, by which container runtimes name it."""
    with tarfile.open(archive) as tar:
        return str(_manifest(tar)["Config"]).removesuffix(".json").rpartition("/")[2]


def extracted(archive: Path, folder: Path) -> Path:
    """Lay out the files that say what is in an image, as the last layer has them; returns the folder."""
    with tarfile.open(archive) as tar:
        for layer in _manifest(tar)["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as files:
                for file in files:
                    path = Path(file.name)
                    if path.name.startswith(".wh."):
                        gone = folder / path.with_name(path.name.removeprefix(".wh."))
                        shutil.rmtree(gone, ignore_errors=True)
                        gone.unlink(missing_ok=True)
                    elif _WANTED.fullmatch(file.name) and file.isfile():
                        files.extract(file, folder, filter="data")
    return folder


def debian_packages(folder: Path) -> Iterator[DebianPackage]:
    """Yield the Debian packages that are installed, by name."""
    status = folder / "var" / "lib" / "dpkg" / "status"
    if not status.exists():
        return
    for paragraph in sorted(status.read_text().split("\n\n")):
        fields = dict(re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", paragraph))
        if fields.get("Status") != "install ok installed":
            continue
        name = fields["Package"]
        yield DebianPackage(
            name,
            fields["Version"],
            fields["Architecture"],
            str(fields.get("Source", name)).partition(" ")[0],
            fields.get("Section", ""),
            _licences(folder / "usr" / "share" / "doc" / name / "copyright"),
        )


def _licences(path: Path) -> tuple[str, ...]:
    text = path.read_text(errors="replace") if path.is_file() else ""
    return tuple(sorted(set(_LICENCE.findall(text)))) if text.startswith("Format:") else ()


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    file = tar.extractfile("manifest.json")
    assert file is not None
    found: dict[str, Any] = json.load(file)[0]
    return found
