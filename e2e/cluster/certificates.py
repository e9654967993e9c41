"""Certificates and kubeconfigs of one cluster: two authorities, those they vouch for, a key for tokens."""

import base64
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from e2e.cluster.site import NODE, Site

_VALID: Final = timedelta(days=30)
_CLOCK_SKEW: Final = timedelta(minutes=5)

_USERS: Final = {
    "admin": ("galley-e2e-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
"""Who has a kubeconfig, under which name and in which group."""


@dataclass(frozen=True)
class Signed:
    """A key, and the certificate that says whose it is."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def write(self, folder: Path, stem: str) -> None:
        """Write both; the key for our eyes only."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        (folder / f"{stem}.crt").write_bytes(pem)
        _write_private(folder / f"{stem}.key", _pem(self.key))

    def issue(self, name: str, group: str = "", hosts: Sequence[str] = ()) -> "Signed":
        """Vouch for a server at those hosts, or for a client if there are none."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(_subject(name, group), key, authority=False)
            .issuer_name(self.certificate.subject)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return Signed(key, builder.sign(self.key, hashes.SHA256()))


def authority(name: str) -> Signed:
    """Return a new authority that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, "")
    builder = _builder(subject, key, authority=True).issuer_name(subject)
    return Signed(key, builder.sign(key, hashes.SHA256()))


def write(site: Site) -> None:
    """Write every certificate and kubeconfig the programs of a cluster are told to use."""
    folder = site.pki
    folder.mkdir(mode=0o700)
    cluster = authority("galley-e2e")
    cluster.write(folder, "ca")
    service = "kubernetes.default.svc"
    hosts = ["kubernetes", "kubernetes.default", service, f"{service}.cluster.local", "localhost"]
    addresses = dict.fromkeys([site.node_ip, site.api_service_ip, "127.0.0.1"])
    cluster.issue("kube-apiserver", hosts=[*hosts, *addresses]).write(folder, "apiserver")
    cluster.issue("kube-apiserver-kubelet-client", "system:masters").write(folder, "apiserver-kubelet")
    for user, (name, group) in _USERS.items():
        client = cluster.issue(name, group)
        client.write(folder, user)
        _write_kubeconfig(site, user, cluster, client)
    front = authority("galley-e2e-front-proxy")
    front.write(folder, "front-ca")
    front.issue("front-proxy-client").write(folder, "front")
    tokens = ec.generate_private_key(ec.SECP256R1())
    _write_private(folder / "sa.key", _pem(tokens))
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "sa.pub").write_bytes(public)


def _write_kubeconfig(site: Site, user: str, cluster: Signed, client: Signed) -> None:
    """Write a kubeconfig, in JSON, which is YAML."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "galley-e2e",
        "clusters": [
            {
                "name": "galley-e2e",
                "cluster": {"server": site.api_url, "certificate-authority-data": _certificate64(cluster)},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _certificate64(client),
                    "client-key-data": _base64(_pem(client.key)),
                },
            }
        ],
        "contexts": [{"name": "galley-e2e", "context": {"cluster": "galley-e2e", "user": user}}],
    }
    _write_private(site.pki / f"{user}.kubeconfig", json.dumps(config, indent=1).encode() + b"\n")


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        key_encipherment=not authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str, group: str) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate64(signed: Signed) -> str:
    return _base64(signed.certificate.public_bytes(serialization.Encoding.PEM))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
