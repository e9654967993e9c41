"""The encryption of a connection: never weaker than asked for, and what its failures mean.

The library encrypts if the server requires it, and not if the server merely offers it: an attacker who can
change the server's first line could keep a connection in plain text. Here the client decides.
"""

import asyncio
import select
import ssl
from typing import Any, Final

from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

from galley.broker.errors import (
    BrokerError,
    CertificateRefused,
    ClientCertificateRefused,
    Distrust,
    NotEncrypted,
    TlsFailed,
)
from galley.errors import TlsInvalid
from galley.tls import Tls

_DISTRUST: Final = {
    9: Distrust.NOT_YET_VALID,
    10: Distrust.EXPIRED,
    18: Distrust.UNKNOWN_AUTHORITY,
    19: Distrust.UNKNOWN_AUTHORITY,
    20: Distrust.UNKNOWN_AUTHORITY,
    21: Distrust.UNKNOWN_AUTHORITY,
    62: Distrust.OTHER_HOST,
    64: Distrust.OTHER_HOST,
}
"""What OpenSSL's codes for a certificate it does not accept mean (X509_V_ERR_...)."""

_ABOUT_OURS: Final = ("certificate_required", "bad_certificate", "unknown_ca", "certificate_unknown",
                      "certificate_expired", "certificate_revoked", "unsupported_certificate")  # fmt: skip
"""Alerts with which a server refuses the certificate of its client."""

_CLOSED_BY_PEER: Final = getattr(select, "POLLRDHUP", 0)
"""Where there is no such event, that a connection is reset is noticed without asking for it."""


class EncryptionMissing(NatsError):
    """The server offers no encryption, and the client requires it."""


class Transport(TcpTransport):
    """A connection that is encrypted where it stands, and keeps its flow control then.

    Nothing is written to it once the server has closed it: what the server sent before is read first. When a
    write fails, asyncio drops what it has not read yet, and a task on its way waits for its lease to end.
    """

    _closed: "select.poll | None" = None
    """What tells that the server closed the connection; None until there is one."""

    def __bool__(self) -> bool:
        """Be true from the beginning, or the library puts one of its own in our place."""
        return True

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        """Connect; raises what the network raises."""
        await super().connect(uri, buffer_size, connect_timeout)
        assert self._io_writer is not None
        self._closed = select.poll()
        self._closed.register(self._io_writer.get_extra_info("socket"), _CLOSED_BY_PEER)

    def writelines(self, payload: list[bytes]) -> None:
        """Write, unless the server has closed the connection, or there is none yet.

        The library writes what is left when it closes, also in the midst of a try to connect.
        """
        if self._closed is not None and not self._closed.poll(0):
            super().writelines(payload)  # type: ignore[no-untyped-call]

    async def drain(self) -> None:
        """Wait until what was written is on its way; raises what the network raises."""
        if self._closed is not None:
            await super().drain()  # type: ignore[no-untyped-call]

    async def connect_tls(
        self, uri: Any, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Encrypt the connection; raises what the handshake raises."""
        del buffer_size
        assert self._io_writer is not None, "it is connected before it is encrypted"
        name = uri if isinstance(uri, str) else uri.hostname
        handshake = self._io_writer.start_tls(ssl_context, server_hostname=name)
        await asyncio.wait_for(handshake, connect_timeout)


def insist(info: dict[str, Any]) -> None:
    """Have a connection encrypted, also where the server leaves that to its clients.

    Raises:
        EncryptionMissing: if it cannot be.
    """
    if not (info.get("tls_required") or info.get("tls_available")):
        raise EncryptionMissing("nats: the server offers no TLS")
    info["tls_required"] = True


def context_of(tls: Tls | None) -> ssl.SSLContext:
    """Return the context for the next connection.

    Raises:
        NatsError: about files that cannot be used; whatever else is raised here ends the library's tries.
    """
    try:
        return (tls or Tls()).context()
    except TlsInvalid as error:
        raise NatsError(str(error)) from error


def tls_error(error: BaseException, server: str, tls: Tls | None) -> BrokerError | None:
    """Return what a failure to connect means, or None if it is not about encryption."""
    if isinstance(error, EncryptionMissing):
        return NotEncrypted(server)
    if isinstance(error.__cause__, TlsInvalid):
        return TlsFailed(server, str(error), error.__cause__.hint)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _DISTRUST.get(error.verify_code, Distrust.OTHER)
        return CertificateRefused(server, why, error.verify_message.lower())
    if not isinstance(error, ssl.SSLError):
        return None
    alert = (error.reason or "").lower()
    if any(word in alert for word in _ABOUT_OURS):
        ours = str(tls.certificate) if tls is not None and tls.certificate else ""
        return ClientCertificateRefused(server, ours, alert.replace("_", " "))
    return TlsFailed(server, (alert or str(error)).replace("_", " "))
