"""How to reach the Kubernetes API, and as whom."""

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from galley_operator.cluster.errors import ClusterConfigInvalid

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

TOKEN_SECONDS: Final = 60.0
"""How long a token read from a file is used. The kubelet renews it when a fifth of its life is left, which
is minutes at the least."""


class Token:
    """A bearer token: constant, or in a file that is renewed while we run."""

    def __init__(self, source: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = source if isinstance(source, Path) else None
        self._text = source if isinstance(source, str) else ""
        self._clock = clock
        self._read_again_at = 0.0

    def text(self) -> str:
        """Return the token, reading its file again now and then.

        Raises:
            ClusterConfigInvalid: if the file cannot be read.
        """
        if self._file is not None and self._clock() >= self._read_again_at:
            try:
                self._text = self._file.read_text("ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ClusterConfigInvalid(
                    str(self._file), f"the token cannot be read: {error}",
                    "mount the ServiceAccount's token (automountServiceAccountToken: true)",
                ) from error  # fmt: skip
            self._read_again_at = self._clock() + TOKEN_SECONDS
        return self._text

    def refused(self) -> None:
        """Have the file read before the next use: the server does not accept what was read last."""
        self._read_again_at = 0.0


@dataclass(frozen=True)
class ClusterConfig:
    """One API server, and our identity there."""

    server: str
    """Its URL, without a slash at the end."""
    tls: ssl.SSLContext | None
    """None for a server without TLS."""
    token: Token | None = None
    namespace: str = "default"
    """The namespace we run in, or the one of the kubeconfig's context."""


def load_config(kubeconfig: Path | None = None) -> ClusterConfig:
    """Return how to reach the cluster this process runs in, or the one of a kubeconfig file.

    Args:
        kubeconfig: its current context counts; None means inside a pod, or else the file in KUBECONFIG.

    Raises:
        ClusterConfigInvalid: if there is neither, or the file lacks something.
    """
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return in_cluster(
            SERVICE_ACCOUNT, os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        )
    if kubeconfig is None and (named := os.environ.get("KUBECONFIG", "")):
        kubeconfig = Path(named)
    if kubeconfig is None:
        raise ClusterConfigInvalid(
            "KUBERNETES_SERVICE_HOST",
            "we run in no pod, and no kubeconfig was named",
            "set KUBECONFIG to a file",
        )
    return from_kubeconfig(kubeconfig)


def in_cluster(mount: Path, host: str, port: str) -> ClusterConfig:
    """Return the configuration of a pod.

    Args:
        mount: the folder with the ServiceAccount's token, authority and namespace.
        host: of the API server.
        port: of the API server.
    """
    token = Token(mount / "token")
    token.text()
    try:
        tls = ssl.create_default_context(cafile=str(mount / "ca.crt"))
        namespace = (mount / "namespace").read_text("utf-8").strip()
    except OSError as error:
        raise ClusterConfigInvalid(
            str(mount), f"what a pod knows about its cluster cannot be read: {error}",
            "mount the ServiceAccount's token (automountServiceAccountToken: true)",
        ) from error  # fmt: skip
    address = f"[{host}]" if ":" in host else host
    return ClusterConfig(f"https://{address}:{port}", tls, token, namespace)


def from_kubeconfig(file: Path) -> ClusterConfig:
    """Return the configuration of a kubeconfig's current context."""
    try:
        document = yaml.safe_load(file.read_text("utf-8"))
        context = _named(document, "context", document["current-context"])
        cluster = _named(document, "cluster", context["cluster"])
        user = _named(document, "user", context["user"])
        server = str(cluster["server"]).rstrip("/")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise ClusterConfigInvalid(
            str(file), f"it is no kubeconfig with a current context: {type(error).__name__}: {error}",
            "try kubectl config view --minify with it",
        ) from error  # fmt: skip
    if "exec" in user or "auth-provider" in user:
        raise ClusterConfigInvalid(
            str(file), "its user logs in by a program, which is not supported",
            "use a token or a certificate: kubectl create token SERVICEACCOUNT",
        )  # fmt: skip
    tls = _tls(file, cluster, user) if server.startswith("https:") else None
    return ClusterConfig(server, tls, _token(file, user), context.get("namespace") or "default")


def _named(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    return dict(next(each[kind] for each in document[f"{kind}s"] if each["name"] == name) or {})


def _token(file: Path, user: dict[str, Any]) -> Token | None:
    if path := user.get("tokenFile"):
        return Token(file.parent / path)
    return Token(str(user["token"])) if user.get("token") else None


def _tls(file: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    try:
        authority = _content(file, cluster, "certificate-authority")
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        certificate, key = _content(file, user, "client-certificate"), _content(file, user, "client-key")
        if certificate and key:
            # The ssl module takes both from a file only; it is read at once and gone.
            with tempfile.NamedTemporaryFile(suffix=".pem") as pem:
                pem.write(certificate + b"\n" + key)
                pem.flush()
                tls.load_cert_chain(pem.name)
    except (OSError, ValueError) as error:
        raise ClusterConfigInvalid(
            str(file), f"its certificates cannot be used: {error}", "try kubectl get --raw /readyz with it"
        ) from error
    return tls


def _content(file: Path, part: dict[str, Any], name: str) -> bytes:
    if data := part.get(f"{name}-data"):
        return base64.b64decode(data)
    path = part.get(name)
    return (file.parent / path).read_bytes() if path else b""
