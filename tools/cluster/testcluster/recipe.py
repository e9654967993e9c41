"""What is built from the Go module, how, and the name under which the result is kept."""

import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULE: Final = Path(__file__).parent / "kube"
_PLUGINS: Final = "github.com/containernetworking/plugins/plugins"
_VERSION_PACKAGES: Final = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")

LINKS: Final = (
    "kubectl", "helm", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy",
    "kubelet", "containerd", "ctr", "coredns",
)  # fmt: skip
"""The programs in the one binary `kube`; a link to it by each name runs it."""


@dataclass(frozen=True)
class Recipe:
    """One `go build`."""

    output: str
    """A file below the binaries' folder, or a folder if it ends in a slash."""

    packages: tuple[str, ...]
    linker_flags: str = "-s -w"
    tags: str = ""
    cgo: bool = False

    def command(self, binaries: Path) -> Sequence[str]:
        """Return the `go build` that puts the result below the folder."""
        tags = ["-tags", self.tags] if self.tags else []
        target = f"{binaries}/{self.output}"
        return ["go", "build", "-v", *tags, "-ldflags", self.linker_flags, "-o", target, *self.packages]


def recipes() -> Sequence[Recipe]:
    """Return what is built, in order: the small ones last, since they share what the large one compiled."""
    runc = _version("github.com/opencontainers/runc").removeprefix("v")
    return (
        Recipe("kube", (".",), linker_flags=f"-s -w {_versions()}"),
        Recipe("pause", ("./pause",)),
        Recipe("probe", ("./probe",)),
        Recipe(
            "containerd-shim-runc-v2", ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",)
        ),
        Recipe("nats-server", ("github.com/nats-io/nats-server/v2",)),
        Recipe(
            "cni/", (f"{_PLUGINS}/main/bridge", f"{_PLUGINS}/main/loopback", f"{_PLUGINS}/ipam/host-local")
        ),
        # Pods with `seccompProfile: RuntimeDefault` fail under a runc without seccomp, and ours all have it.
        Recipe(
            "runc",
            ("github.com/opencontainers/runc",),
            linker_flags=f"-s -w -extldflags -static -X main.version={runc}",
            tags="netgo osusergo seccomp",
            cgo=True,
        ),
    )


def name() -> str:
    """Return the name of what would be built: the Kubernetes version, and a digest of all that goes in."""
    digest = hashlib.sha256(platform.machine().encode())
    for path in sorted([*MODULE.rglob("*.go"), MODULE / "go.mod", MODULE / "go.sum"]):
        digest.update(f"\0{path.relative_to(MODULE)}\0".encode() + path.read_bytes())
    digest.update(repr(recipes()).encode())
    return f"{kubernetes_version()}-{digest.hexdigest()[:12]}"


def kubernetes_version() -> str:
    """Return the version of Kubernetes that is built, such as v1.36.3."""
    return _version("k8s.io/kubernetes")


def go_version() -> str:
    """Return the oldest Go that can build it."""
    return _in_go_mod(r"^go (\S+)")


def _version(module: str) -> str:
    return _in_go_mod(rf"^\t{re.escape(module)} (v\S+)")


def _in_go_mod(pattern: str) -> str:
    found = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{MODULE / 'go.mod'} has no line {pattern}")
    return found[1]


def _versions() -> str:
    """Return linker flags that tell the programs their versions, as upstream's own builds do."""
    kubernetes = kubernetes_version()
    values = {
        "gitVersion": kubernetes, "gitMajor": "1", "gitMinor": kubernetes.split(".")[1],
        "gitTreeState": "clean", "gitCommit": "module", "buildDate": "1970-01-01T00:00:00Z",
    }  # fmt: skip
    flags = [f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in values.items()]
    containerd, helm = "github.com/containerd/containerd/v2", "helm.sh/helm/v4"
    flags.append(f"-X {containerd}/version.Version={_version(containerd)}")
    flags.append(f"-X {helm}/internal/version.version={_version(helm)}")
    return " ".join(flags)
