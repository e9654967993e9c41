"""What images there are, and what each is made of."""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
"""The repository."""


def _version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


TAG: Final = _version()
"""What the chart asks for, so that it finds these images as it stands."""


@dataclass(frozen=True)
class Base:
    """The image all others start from, made of Debian packages."""

    suite: str = "trixie"
    python: str = "3.13"
    packages: tuple[str, ...] = ("python3", "python3-venv", "ca-certificates", "tzdata")
    left_out: tuple[str, ...] = ("man", "locale", "doc", "info")
    """Folders of /usr/share that nobody reads in a container."""

    reference: str = "localhost/galley-base:e2e"

    @property
    def content(self) -> str:
        """A word that changes whenever the image would."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


BASE: Final = Base()


@dataclass(frozen=True)
class Image:
    """An image, its Dockerfile, and the files that are in reach of it."""

    name: str
    dockerfile: Path
    context: Path
    """The folder a build starts in."""

    sources: tuple[str, ...]
    """What of that folder it takes: a change elsewhere makes no other image."""

    locks: tuple[Path, ...] = ()
    """What is installed from the package index."""

    origin: "Image | None" = None
    """The image of ours that it starts from; the base image if None."""

    @property
    def reference(self) -> str:
        """Name and tag in full; pods may ask for `NAME:TAG` alone, as docker would call it."""
        return f"docker.io/library/{self.name}:{TAG}"

    def files(self) -> Iterator[Path]:
        """Yield every file that goes into it, in a fixed order."""
        yield self.dockerfile
        yield from self.locks
        for source in self.sources:
            path = self.context / source
            found = path.rglob("*") if path.is_dir() else iter([path])
            yield from sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)

    @property
    def content(self) -> str:
        """A word that changes whenever the image would, so with its files or its origin."""
        digest = hashlib.sha256(f"{BASE.content} {self.origin.content if self.origin else ''} {TAG}".encode())
        for file in self.files():
            name, data = str(file.relative_to(ROOT)).encode(), file.read_bytes()
            digest.update(b"%d %s %d " % (len(name), name, len(data)) + data)
        return digest.hexdigest()[:12]


_PROJECT: Final = ("pyproject.toml", "README.md", "LICENSE", "sdk/galley")
_BUILD_LOCK: Final = ROOT / "requirements" / "build.txt"

WORKER: Final = Image(
    "galley-worker",
    ROOT / "worker-image" / "Dockerfile",
    ROOT,
    (*_PROJECT, "worker-image/galley_worker"),
    (_BUILD_LOCK, ROOT / "requirements" / "worker.txt"),
)
OPERATOR: Final = Image(
    "galley-operator",
    ROOT / "operator" / "Dockerfile",
    ROOT,
    (*_PROJECT, "operator/galley_operator"),
    (_BUILD_LOCK, ROOT / "requirements" / "operator.txt"),
)
THUMBNAILS: Final = Image(
    "galley-thumbnails",
    ROOT / "examples" / "thumbnails" / "Dockerfile",
    ROOT / "examples",
    ("thumbnails/thumbnails.py", "folder/input"),
    (ROOT / "examples" / "thumbnails" / "requirements.txt",),
    origin=WORKER,
)
DOCKERFILES: Final[Mapping[str, Image]] = {image.name: image for image in (WORKER, OPERATOR, THUMBNAILS)}
"""The images that are built from a Dockerfile, by name; each after the one it starts from."""

NATS: Final = "nats"
NATS_REFERENCE: Final = "localhost/nats:e2e"
