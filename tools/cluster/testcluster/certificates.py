"""Certificates and kubeconfigs of one cluster: two authorities, and a key that signs tokens."""

import base64
import json
from pathlib import Path
from typing import Final

from trustme import CA, Blob, LeafCert

from testcluster.site import NODE, Site

_USERS: Final = {
    "admin": ("galley-e2e-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
"""Each kubeconfig, and the user and group it authenticates as."""


def write(site: Site) -> None:
    """Write every certificate and kubeconfig that the programs of a cluster use."""
    folder = site.pki
    folder.mkdir(mode=0o700)
    cluster = CA(organization_name="galley-e2e")
    _write(folder, "ca", cluster.cert_pem, cluster.private_key_pem)
    service = "kubernetes.default.svc"
    hosts = ["kubernetes", "kubernetes.default", service, f"{service}.cluster.local", "localhost"]
    addresses = dict.fromkeys([site.node_ip, site.api_service_ip, "127.0.0.1"])
    server = cluster.issue_cert(*hosts, *addresses, common_name="kube-apiserver")
    _write_leaf(folder, "apiserver", server)
    _write_leaf(
        folder, "apiserver-kubelet", _user(cluster, "kube-apiserver-kubelet-client", "system:masters")
    )
    for name, (user, group) in _USERS.items():
        client = _user(cluster, user, group)
        _write_leaf(folder, name, client)
        _write_kubeconfig(site, name, cluster, client)
    front = CA(organization_name="galley-e2e-front-proxy")
    _write(folder, "front-ca", front.cert_pem, front.private_key_pem)
    _write_leaf(folder, "front", _user(front, "front-proxy-client", None))
    # Tokens of ServiceAccounts are signed with a bare key and verified with the certificate of it.
    _write_leaf(folder, "sa", cluster.issue_cert("tokens.invalid"))


def _user(authority: CA, name: str, group: str | None) -> LeafCert:
    """Return a client certificate; Kubernetes reads the user from its CN and the group from its O."""
    # Go rejects a certificate without any name in its critical list of names; clients need none.
    return authority.issue_cert("client.invalid", common_name=name, organization_name=group)


def _write_kubeconfig(site: Site, user: str, cluster: CA, client: LeafCert) -> None:
    """Write a kubeconfig, in JSON, which is YAML."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "galley-e2e",
        "clusters": [
            {
                "name": "galley-e2e",
                "cluster": {"server": site.api_url, "certificate-authority-data": _base64(cluster.cert_pem)},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(client.cert_chain_pems[0]),
                    "client-key-data": _base64(client.private_key_pem),
                },
            }
        ],
        "contexts": [{"name": "galley-e2e", "context": {"cluster": "galley-e2e", "user": user}}],
    }
    _write_private(site.pki / f"{user}.kubeconfig", json.dumps(config, indent=1).encode() + b"\n")


def _write_leaf(folder: Path, stem: str, leaf: LeafCert) -> None:
    _write(folder, stem, leaf.cert_chain_pems[0], leaf.private_key_pem)


def _write(folder: Path, stem: str, certificate: Blob, key: Blob) -> None:
    certificate.write_to_path(folder / f"{stem}.crt")
    _write_private(folder / f"{stem}.key", key.bytes())


def _base64(blob: Blob) -> str:
    return base64.b64encode(blob.bytes()).decode()


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
