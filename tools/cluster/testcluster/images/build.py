"""Builds images from their Dockerfiles into archives, each content once."""

import hashlib
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from testcluster import archive as one_layer
from testcluster.images import base, cache, programs
from testcluster.images.image import BASE, DOCKERFILES, NATS, NATS_REFERENCE, Image
from testcluster.progress import Say, say

NAMES: Final = (*DOCKERFILES, NATS)
"""All images there are."""

_LAYERS_GIBIBYTES: Final = 6
"""Layers of earlier builds make the next one fast; above this size they are all deleted."""

_WHEELS_INSIDE: Final = "/wheels"


def archives(names: Iterable[str] = NAMES, say: Say = say) -> dict[str, Path]:
    """Return the archive of each image, built first if its content is not there yet.

    Raises:
        CannotRunHere: if something needed to build is missing; the hint says what.
        ImageNotBuilt: if a build fails.
    """
    return {name: _nats(say) if name == NATS else archive(DOCKERFILES[name], say) for name in names}


def archive(image: Image, say: Say = say) -> Path:
    """Return the archive of one image, built first if its content is not there yet.

    Raises:
        CannotRunHere: if something needed to build is missing; the hint says what.
        ImageNotBuilt: if a build fails.
    """
    content = image.content
    if ready := cache.found(image.name, content):
        return ready
    with cache.lock(say):
        return cache.found(image.name, content) or _build(image, content, say)


def _build(image: Image, content: str, say: Say) -> Path:
    began = time.monotonic()
    programs.ensure(say)
    _keep_layers_bounded()
    cold = not (cache.folder() / "layers").exists()
    say(f"building {image.name}, {'about two minutes' if cold else 'half a minute'}")
    base.put()
    _put(image)
    target = cache.archive(image.name, content)
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    programs.buildah("push", "--quiet", image.reference, f"docker-archive:{part}:{image.reference}")
    part.rename(target)
    cache.drop_old(image.name)
    say(f"built {image.name} in {time.monotonic() - began:.0f} s ({target.stat().st_size / 1e6:.0f} MB)")
    return target


def _put(image: Image) -> None:
    """Have buildah make an image, and before it the one it starts from."""
    arguments = ["--build-arg", f"BASE={BASE.reference}"]
    if image.origin is not None:
        _put(image.origin)
        arguments += ["--build-arg", f"WORKER={image.origin.reference}"]
    programs.buildah(
        *("build", "--quiet", "--isolation", "chroot", "--layers", "--timestamp", "1700000000"),
        *("--pull-never", *arguments, *_wheels(image)),
        *("--file", str(image.dockerfile), "--tag", image.reference, str(image.context)),
    )


def wheel_folder(image: Image) -> Path:
    """Return where the wheels of an image are kept, whether or not they have been fetched."""
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in image.locks)).hexdigest()[:12]
    return cache.folder() / "wheels" / f"{image.name}-{digest}"


def _wheels(image: Image) -> Sequence[str]:
    """Fetch what it installs, with pip as it is configured here, and return how buildah is to use that.

    So a build needs no network, and no address of this machine gets near an image.
    """
    if not image.locks:
        return ()
    folder = wheel_folder(image)
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        requirements = [word for lock in image.locks for word in ("--requirement", str(lock))]
        programs.pip(
            *("download", "--no-deps", "--prefer-binary", "--python-version", BASE.python),
            *("--require-hashes", "--dest", str(part), *requirements),
        )
        part.rename(folder)
    return (
        *("--volume", f"{folder}:{_WHEELS_INSIDE}:ro"),
        *("--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"PIP_FIND_LINKS={_WHEELS_INSIDE}"),
    )


def _nats(say: Say) -> Path:
    """Write an image of the nats-server our tests run; in a cluster of one's own it is the official image."""
    binary, busybox = programs.nats_server(), programs.busybox(say)
    files = [(path, path.stat()) for path in (binary, busybox)]
    known = " ".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files)
    content = hashlib.sha256(known.encode()).hexdigest()[:12]
    if ready := cache.found(NATS, content):
        return ready
    target = cache.archive(NATS, content)
    part = target.with_suffix(f".{platform.node()}.part")
    # What probes and init containers of the chart run in the official image.
    tools = {f"usr/local/bin/{name}": busybox for name in ("wget", "sh", "cat", "rm")}
    one_layer.write(
        part, NATS_REFERENCE, {"usr/local/bin/nats-server": binary, **tools}, ["/usr/local/bin/nats-server"]
    )
    part.rename(target)
    cache.drop_old(NATS)
    return target


def _keep_layers_bounded() -> None:
    layers = cache.folder() / "layers"
    # Renamed first: a removal that is cut off must not leave half of them in use.
    gone = layers.with_name("layers.gone")
    if gone.exists():
        shutil.rmtree(gone)
    if not layers.exists():
        return
    # A hundred thousand files and more, which Python looks at for half a minute.
    counted = subprocess.run(["du", "--summarize", "--block-size=1", layers], capture_output=True, check=True)
    if int(counted.stdout.split()[0]) > _LAYERS_GIBIBYTES * 2**30:
        layers.rename(gone)
        shutil.rmtree(gone)
