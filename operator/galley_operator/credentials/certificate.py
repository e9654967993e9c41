"""Certificates of our own NATS: an authority, what it signs, and when each is replaced.

An authority is replaced without a break. The new one is first only trusted, then signs, and only then the old
one is dropped; between two steps lies the time in which every client has fetched what to trust. The times are
those in the certificates, so nothing else has to be remembered.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from galley_operator.errors import CertificateInvalid

_SKEW: Final = timedelta(minutes=5)
"""Certificates begin so much earlier: clocks differ."""


class Pair(NamedTuple):
    """A certificate and its private key, both in PEM; a certificate may be followed by those above it."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Times:
    """How long things are good for."""

    certificate: timedelta = timedelta(days=90)
    """Life of a server's certificate; it is replaced when a third of it is left, so an operator may be away
    for a month."""
    authority: timedelta = timedelta(days=3650)
    """Life of an authority; the next one is made when a tenth of it is left."""
    overlap: timedelta = timedelta(days=7)
    """Time between two steps of replacing an authority: as long as credentials are valid, so a client that
    fetches these in time has fetched the authorities, too."""


class Chain(NamedTuple):
    """What servers and clients of one NATS need."""

    trusted: tuple[str, ...]
    """Certificates of the authorities to trust."""
    signer: Pair
    """The authority that signs now."""
    successor: Pair | None
    """The one that will, once all clients trust it."""
    server: Pair
    """The certificate that servers show, to clients and to one another."""


def replaced(
    present: Chain | None, hosts: Sequence[str], now: datetime, times: Times, *, new_authority: bool = False
) -> Chain:
    """Return what should be instead of `present`, which is the same if nothing is due.

    Args:
        present: None if there is nothing yet.
        hosts: names and addresses of the servers.
        now: with its offset from UTC.
        times: how long things are good for.
        new_authority: whether to begin replacing the authority though it is not due.
    """
    if present is None or _loaded(present.signer.certificate).not_valid_after_utc <= now:
        signer = made_authority(now, times.authority)
        return Chain((signer.certificate,), signer, None, issued(signer, hosts, now, times.certificate))
    signer, successor = present.signer, present.successor
    if successor is None and (new_authority or _left(signer, now) < times.authority / 10):
        successor = made_authority(now, times.authority)
    if successor is not None and now >= _made_at(successor) + times.overlap:
        signer, successor = successor, None
    needed = [signer.certificate, *([successor.certificate] if successor else [])]
    overlaps = now < _made_at(signer) + 2 * times.overlap
    former = [each for each in present.trusted if each not in needed and overlaps and _good(each, now)]
    server = present.server
    if not _signed_by(server, signer) or set(hosts_of(server)) != set(hosts) or _due(server, now):
        server = issued(signer, hosts, now, times.certificate)
    return Chain((*former, *needed), signer, successor, server)


def made_authority(now: datetime, life: timedelta) -> Pair:
    """Return a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Galley NATS {now:%Y-%m-%dT%H:%M:%SZ}")])
    certificate = (
        _builder(name, name, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issued(authority: Pair, hosts: Sequence[str], now: datetime, life: timedelta) -> Pair:
    """Return a new certificate for servers; they show it to one another as well."""
    signer, signer_key = _loaded(authority.certificate), _loaded_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Galley NATS server")])
    life = min(life, signer.not_valid_after_utc - now)
    certificate = (
        _builder(name, signer.subject, key.public_key(), now, life)
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False
        )
        .sign(signer_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def checked(pair: Pair, now: datetime, source: str) -> Pair:
    """Return a certificate that someone else made, if a server can show it.

    Raises:
        CertificateInvalid: saying why not.
    """
    try:
        certificate, key = _loaded(pair.certificate), load_pem_private_key(pair.key.encode(), None)
    except (ValueError, TypeError) as error:
        raise CertificateInvalid(source, f"tls.crt or tls.key cannot be read: {error}") from None
    if certificate.public_key() != key.public_key():
        raise CertificateInvalid(source, "tls.key is not the key of tls.crt")
    if certificate.not_valid_after_utc <= now:
        raise CertificateInvalid(source, f"tls.crt expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    return pair


def usable(pair: Pair) -> bool:
    """Whether certificate and key can be read and belong together."""
    try:
        checked(pair, datetime.min.replace(tzinfo=UTC), "")
    except CertificateInvalid:
        return False
    return True


def authorities_in(text: str, source: str) -> tuple[str, ...]:
    """Return the certificates in a text, one by one; there is at least one.

    Raises:
        CertificateInvalid: if there is none, or some of it is something else.
    """
    if not text.strip():
        raise CertificateInvalid(source, "there is no ca.crt in it")
    try:
        return tuple(_pem(each) for each in x509.load_pem_x509_certificates(text.encode()))
    except ValueError as error:
        raise CertificateInvalid(source, f"ca.crt cannot be read: {error}") from None


def hosts_of(pair: Pair) -> tuple[str, ...]:
    """Return the names and addresses a certificate is for."""
    names = _loaded(pair.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(each.value) for each in names)


def expiry(pair: Pair) -> datetime:
    """Return when a certificate ends."""
    return _loaded(pair.certificate).not_valid_after_utc


def _builder(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
              "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, **dict.fromkeys(others, False)
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _signed_by(pair: Pair, authority: Pair) -> bool:
    try:
        _loaded(pair.certificate).verify_directly_issued_by(_loaded(authority.certificate))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _due(pair: Pair, now: datetime) -> bool:
    begin, end = _made_at(pair), _loaded(pair.certificate).not_valid_after_utc
    return now < begin - _SKEW or now >= end - (end - begin) / 3


def _good(certificate: str, now: datetime) -> bool:
    return _loaded(certificate).not_valid_after_utc > now


def _left(pair: Pair, now: datetime) -> timedelta:
    return _loaded(pair.certificate).not_valid_after_utc - now


def _made_at(pair: Pair) -> datetime:
    return _loaded(pair.certificate).not_valid_before_utc + _SKEW


def _loaded(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _loaded_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), "only we make authorities"
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(_pem(certificate), private.decode())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def utc(seconds: float) -> datetime:
    """Return a time from seconds since 1970, without fractions: certificates have none."""
    return datetime.fromtimestamp(int(seconds), UTC)
