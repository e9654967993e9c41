"""The release before this one, out of this repository's history: its chart, and its images."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from testcluster.errors import CannotRunHere
from testcluster.images import build, cache
from testcluster.images.image import ROOT, operator, worker
from testcluster.progress import Say, say

VERSION: Final = "0.1.0"
COMMIT: Final = "de8c9ca214543931a663307a3bb0f4bcdfa83945"
"""What was released under that version; both go on with each release."""


def tree(say: Say = say) -> Path:
    """Return the folder of its files.

    Raises:
        CannotRunHere: if this is a copy without that commit.
    """
    folder = cache.folder() / "previous" / COMMIT[:12]
    if not folder.exists():
        with cache.lock(say):
            if not folder.exists():
                _extract(folder)
    return folder


def archives(say: Say = say) -> Sequence[Path]:
    """Return the archives of those of its images that its chart asks for, built first if they are not there.

    Raises:
        CannotRunHere: if this is a copy without that commit, or something needed to build is missing.
        ImageNotBuilt: if a build fails.
    """
    files = tree(say)
    return [build.archive(image, say) for image in (worker(files), operator(files))]


def _extract(folder: Path) -> None:
    command = ["git", "-C", str(ROOT), "archive", COMMIT]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise CannotRunHere(
            f"{ROOT} has no commit {COMMIT[:12]}, which was release {VERSION}",
            "clone it with its history: git fetch --unshallow",
        )
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(part, filter="data")
    part.rename(folder)
