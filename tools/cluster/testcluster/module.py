"""Rewrites `kube/go.mod` after a version changed: run `python -m testcluster.module` and review the result.

k8s.io/kubernetes is published as a module, but its own go.mod takes its parts (k8s.io/api, ...) from folders
beside it, and such lines count only in the main module. So they are repeated here, pointing at the parts as
they are published.
"""

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from testcluster.recipe import MODULE

KUBERNETES: Final = "v1.36.3"
OTHERS: Final = {
    "github.com/containerd/containerd/v2": "v2.3.5",
    "github.com/containernetworking/plugins": "v1.9.1",
    "github.com/coredns/coredns": "v1.14.3",
    "github.com/nats-io/nats-server/v2": "v2.15.2",
    "github.com/opencontainers/runc": "v1.5.1",
    "go.etcd.io/etcd/server/v3": "v3.6.8",
    "helm.sh/helm/v4": "v4.2.3",
}
"""The newest that ask for the same Kubernetes libraries; one that asks for newer ones lifts them for all."""

_TOOLS: Final = (
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "github.com/containernetworking/plugins/plugins/main/bridge",
    "github.com/containernetworking/plugins/plugins/main/loopback",
    "github.com/nats-io/nats-server/v2",
    "github.com/opencontainers/runc",
)
"""Programs built beside our own; listed, so that go.sum has the hashes of all they need."""


def write() -> None:
    """Write go.mod, and let Go complete it and go.sum."""
    upstream = _go_mod_of_kubernetes()
    parts = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/src/\1$", upstream, re.MULTILINE)
    kept = re.findall(r"^(?:go|godebug) .*$", upstream, re.MULTILINE)
    version = KUBERNETES.replace("v1.", "v0.", 1)
    text = ["module galley.dev/e2e/kube", *kept]
    text += _block("require", [f"k8s.io/kubernetes {KUBERNETES}", *map(" ".join, OTHERS.items())])
    text += _block("replace", [f"{part} => {part} {version}" for part in parts])
    text += _block("tool", _TOOLS)
    (MODULE / "go.mod").write_text("\n".join(text) + "\n")
    (MODULE / "go.sum").unlink(missing_ok=True)
    subprocess.run(["go", "mod", "tidy"], cwd=MODULE, check=True)


def _block(word: str, lines: Iterable[str]) -> Iterable[str]:
    return [f"{word} (", *(f"\t{line}" for line in lines), ")"]


def _go_mod_of_kubernetes() -> str:
    command = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}"]
    done = subprocess.run(command, cwd="/", check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout)["GoMod"]).read_text()


if __name__ == "__main__":
    write()
