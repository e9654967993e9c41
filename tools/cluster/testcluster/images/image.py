"""What images there are, and what each is made of."""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[4]
"""The repository."""


def _version(tree: Path) -> str:
    with (tree / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


@dataclass(frozen=True)
class Base:
    """The image all others start from, made of Debian packages."""

    suite: str = "trixie"
    python: str = "3.13"
    packages: tuple[str, ...] = ("python3", "python3-venv", "ca-certificates", "tzdata")
    left_out: tuple[str, ...] = ("man", "locale", "doc", "info")
    """Folders of /usr/share that are of no use in a container."""

    reference: str = "localhost/galley-base:e2e"

    @property
    def content(self) -> str:
        """A digest that changes whenever the image would."""
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

    locks: tuple[Path, ...]
    """What is installed from the package index."""

    tag: str
    """What the chart asks for, so that it finds these images as it stands."""

    origin: "Image | None" = None
    """The image of ours that it starts from; the base image if None."""

    @property
    def reference(self) -> str:
        """Name and tag in full; pods may ask for `NAME:TAG` alone, as docker would call it."""
        return f"docker.io/library/{self.name}:{self.tag}"

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
        """A digest that changes whenever the image would: with its files or its origin."""
        origin = self.origin.content if self.origin else ""
        digest = hashlib.sha256(f"{BASE.content} {origin} {self.tag}".encode())
        for file in self.files():
            name, data = str(file.relative_to(self.context)).encode(), file.read_bytes()
            digest.update(b"%d %s %d " % (len(name), name, len(data)) + data)
        return digest.hexdigest()[:12]


_PROJECT: Final = ("pyproject.toml", "README.md", "LICENSE", "sdk/galley", "sdk/galley_command.py")


def worker(tree: Path) -> Image:
    """Return the image of workers, made from a tree of this repository."""
    return _of_the_project("galley-worker", tree, "worker-image", "worker")


def operator(tree: Path) -> Image:
    """Return the image of the operator, made from a tree of this repository."""
    return _of_the_project("galley-operator", tree, "operator", "operator")


def gateway(tree: Path) -> Image:
    """Return the image of the gateway, made from a tree of this repository."""
    others = tuple(f"operator/galley_operator/{each}" for each in ("__init__.py", "errors.py", "cluster"))
    return _of_the_project("galley-gateway", tree, "gateway", "gateway", others)


def _of_the_project(name: str, tree: Path, room: str, lock: str, others: tuple[str, ...] = ()) -> Image:
    locks = tree / "requirements"
    return Image(
        name,
        dockerfile=tree / room / "Dockerfile",
        context=tree,
        sources=(*_PROJECT, *others, f"{room}/galley_{lock}"),
        locks=(locks / "build.txt", locks / f"{lock}.txt"),
        tag=_version(tree),
    )


WORKER: Final = worker(ROOT)
OPERATOR: Final = operator(ROOT)
GATEWAY: Final = gateway(ROOT)
THUMBNAILS: Final = Image(
    "galley-thumbnails",
    dockerfile=ROOT / "examples" / "thumbnails" / "Dockerfile",
    context=ROOT / "examples",
    sources=("thumbnails/thumbnails.py", "folder/input"),
    locks=(ROOT / "examples" / "thumbnails" / "requirements.txt",),
    tag=WORKER.tag,
    origin=WORKER,
)
DOCKERFILES: Final[Mapping[str, Image]] = {
    image.name: image for image in (WORKER, OPERATOR, GATEWAY, THUMBNAILS)
}
"""The images that are built from a Dockerfile, by name; each after the one it starts from."""

NATS: Final = "nats"
NATS_REFERENCE: Final = "localhost/nats:e2e"
