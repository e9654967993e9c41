"""Images of one layer, as the archives `docker save` writes: for programs that need nothing around them."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PAUSE_IMAGE: Final = "localhost/pause:e2e"
PROBE_IMAGE: Final = "localhost/probe:e2e"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def write(archive: Path, image: str, files: Mapping[str, Path], command: Sequence[str]) -> Path:
    """Write an image of a few files that runs a command, and return the archive's path.

    Args:
        archive: the file to write.
        image: name and tag, under which pods ask for it.
        files: what is in it, by the path inside.
        command: its entry point.
    """
    layer = _layer(files)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": list(command), "User": "65532:65532"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    ).encode()
    # Named by their digests: entries of one name in two archives would lock each other out when both
    # are imported at once.
    config_name, layer_name = f"{hashlib.sha256(config).hexdigest()}.json", f"{digest}.tar"
    manifest: list[dict[str, Any]] = [{"Config": config_name, "RepoTags": [image], "Layers": [layer_name]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, config_name, config)
        _add(tar, layer_name, layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return archive


def pause(archive: Path, binaries: Path) -> Path:
    """Write the image that keeps a pod's namespaces open."""
    return write(archive, PAUSE_IMAGE, {"pause": binaries / "pause"}, ["/pause"])


def probe(archive: Path, binaries: Path, image: str = PROBE_IMAGE) -> Path:
    """Write the image of `kube/probe`, which tells over HTTP what a pod sees."""
    return write(archive, image, {"probe": binaries / "probe"}, ["/probe"])


def _layer(files: Mapping[str, Path]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, source in files.items():
            _add(tar, name, source.read_bytes(), mode=0o755)
    return data.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
