"""TLS to NATS: which authorities a client trusts, and the certificate it shows."""

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from galley.errors import TlsInvalid

Authorities: TypeAlias = Path | Callable[[], str]
"""Certificates in PEM: a file, or a function that returns what would be in it."""

VARIABLES: Final = {
    "ca": "GALLEY_TLS_CA",
    "certificate": "GALLEY_TLS_CERTIFICATE",
    "key": "GALLEY_TLS_KEY",
    "server_name": "GALLEY_TLS_SERVER_NAME",
}
"""The environment variable of each setting."""

_SCHEMES: Final = ("tls://", "wss://")


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is encrypted. Files are read again for each connection, so they can be renewed."""

    ca: Authorities | None = None
    """Certificates of the authorities to trust, in PEM; those of the system by default."""
    certificate: Path | None = None
    """Our own certificate in PEM, for a server that requires one."""
    key: Path | None = None
    """Its private key in PEM; by default in the same file."""
    server_name: str = ""
    """Name that the server's certificate must have; the host of its address by default."""

    def context(self) -> ssl.SSLContext:
        """Return what a connection is made with.

        Raises:
            TlsInvalid: if a file cannot be read, or is not what it should be.
        """
        context = self._trusting()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            _checked(self.certificate)
            try:
                context.load_cert_chain(self.certificate, self.key and _checked(self.key))
            except ssl.SSLError as error:
                problem = f"certificate and key cannot be used together: {_words(error)}"
                raise TlsInvalid(str(self.certificate), problem) from None
        elif self.key is not None:
            raise TlsInvalid(str(self.key), "a key was given without its certificate")
        return context

    def _trusting(self) -> ssl.SSLContext:
        if self.ca is None:
            return ssl.create_default_context()
        source = str(self.ca) if isinstance(self.ca, Path) else "our own authority"
        text = _checked(self.ca).read_text("ascii", "replace") if isinstance(self.ca, Path) else self.ca()
        if "BEGIN CERTIFICATE" not in text:  # an empty text would stand for the authorities of the system
            raise TlsInvalid(source, "it holds no certificates in PEM")
        try:
            context = ssl.create_default_context(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise TlsInvalid(source, f"it holds no certificates in PEM: {_words(error)}") from None
        return context


def tls_of(
    server: str,
    environ: Mapping[str, str],
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    server_name: str = "",
) -> Tls | None:
    """Return how to encrypt a connection: by what is given, else by the environment.

    Returns:
        None if nothing asks for TLS; the connection is encrypted even then if the server requires it.
    """

    def path(name: str, given: Path | None) -> Path | None:
        told = environ.get(VARIABLES[name])
        return given or (Path(told) if told else None)

    found = Tls(
        path("ca", ca),
        path("certificate", certificate),
        path("key", key),
        server_name or environ.get(VARIABLES["server_name"], ""),
    )
    return found if found != Tls() or server.startswith(_SCHEMES) else None


def required_by(server: str) -> Tls | None:
    """Return the TLS that the scheme of an address asks for, if it does."""
    return Tls() if server.startswith(_SCHEMES) else None


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise TlsInvalid(str(path), "it is not a file" if path.exists() else "there is no such file")
    if not os.access(path, os.R_OK):
        raise TlsInvalid(str(path), "it may not be read")
    return path


def _words(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error) or "it is empty").lower().replace("_", " ")
