"""The base image: Debian packages laid out by mmdebstrap, without a registry."""

import os
from pathlib import Path
from typing import Final

from testcluster.images import cache, programs
from testcluster.images.image import BASE, Base

MIRROR: Final = "GALLEY_DEBIAN_MIRROR"
"""The variable with the address of a Debian mirror; mmdebstrap's own choice if it is not set."""

_LOOKS_LIKE_THE_OFFICIAL_ONE: Final = (
    'ln -sf /usr/bin/python3 "$1/usr/local/bin/python"; ln -sf /usr/bin/python3 "$1/usr/local/bin/python3"'
)
_SAME_EACH_TIME: Final = (
    'rm -rf "$1"/usr/lib/python3*/EXTERNALLY-MANAGED "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old '
    '"$1"/var/log/* "$1"/etc/resolv.conf "$1"/etc/hostname; '
    'find "$1/usr" -name __pycache__ -prune -exec rm -rf {} +'
)


def lay_out(target: Path, base: Base = BASE) -> Path:
    """Write the file system of the base image as a tar archive, and return its path.

    Raises:
        ImageNotBuilt: if packages cannot be fetched.
    """
    part = target.with_suffix(".part.tar")
    programs.run(
        "mmdebstrap",
        *("--quiet", "--variant=essential", "--format=tar", f"--include={','.join(base.packages)}"),
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in base.left_out),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--customize-hook={_LOOKS_LIKE_THE_OFFICIAL_ONE}",
        f"--customize-hook={_SAME_EACH_TIME}",
        *(base.suite, str(part)),
        *([mirror] if (mirror := os.environ.get(MIRROR)) else []),
    )
    return part.replace(target)


def put(base: Base = BASE) -> None:
    """Give buildah the base image, if it has not got it.

    Raises:
        ImageNotBuilt: if it cannot be made.
    """
    archive = cache.found("base", base.content) or lay_out(cache.archive("base", base.content), base)
    context = cache.folder() / "base"
    context.mkdir(exist_ok=True)
    inside = context / "base.tar"
    inside.unlink(missing_ok=True)
    inside.hardlink_to(archive)
    dockerfile = Path(__file__).parent / "base" / "Dockerfile"
    programs.buildah(
        *("build", "--quiet", "--isolation", "chroot", "--layers", "--timestamp", "1700000000"),
        *("--file", str(dockerfile), "--tag", base.reference, str(context)),
    )
