"""What can go wrong between a process and the broker.

GalleyError
├── SubjectInvalid     a name from elsewhere that no subject can have
└── BrokerError
├── BrokerUnreachable
├── BrokerSilent       connected, but writes are not acknowledged
├── BrokerFull
├── BrokerTooOld
├── BrokerRefused      an error Galley does not expect
├── AccessRefused      authentication failed
├── CredentialsExpired
├── TlsFailed          no encrypted connection
│   ├── CertificateRefused        the server's certificate is not trusted
│   ├── ClientCertificateRefused  the server does not accept that of the client
│   └── NotEncrypted              the server offers no TLS
├── NotAllowed         authenticated, but not permitted
└── QueueConflict      the streams belong to another installation
"""

from enum import StrEnum
from typing import Final

from galley.errors import GalleyError

_MISSING: Final = frozenset((10014, 10037, 10043, 10057, 10059))
"""The server's codes for a consumer, a message to be read or deleted, and a stream that are not there."""


class BrokerError(GalleyError):
    """The broker could not do what was asked."""

    reason = "BrokerError"


class BrokerUnreachable(BrokerError):
    """The broker did not answer in time."""

    reason = "BrokerUnreachable"
    hint = "check that nats-server is running there, and that the address (--server, GALLEY_SERVER) is right"

    def __init__(self, server: str, problem: str) -> None:
        self.server, self.problem = server, problem
        if "maximum control line" in problem:
            self.hint = (
                "set max_control_line: 32KB in the configuration of nats-server: credentials need that"
            )
        super().__init__(f"no answer from NATS at {server}: {problem}")


class BrokerSilent(BrokerError):
    """Connected, but the broker is not acknowledging writes."""

    reason = "BrokerSilent"
    hint = (
        "look at the log of nats-server; if its disk was full, free space and restart it. "
        "Submitting the same id again is safe"
    )

    def __init__(self, server: str, problem: str, seconds: float) -> None:
        self.server, self.problem, self.seconds = server, problem, seconds
        super().__init__(
            f"NATS at {server} is connected but does not acknowledge writes: "
            f"{problem}, tried for {seconds:g} s"
        )


class SubjectInvalid(GalleyError):
    """A name that came from a message or an object cannot be put into a subject or a header of NATS.

    It is no `BrokerError`: trying again does not help.
    """

    reason = "SubjectInvalid"
    hint = "find the task, workflow or record with this name, and delete it"

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(
            f"{subject[:200]!r} contains a blank or line break, or is too long; nothing was sent"
        )


class BrokerFull(BrokerError):
    """The broker has no storage left; nothing was stored."""

    reason = "BrokerFull"
    hint = "give nats-server more storage (its disk, max_file_store, or the account's limits)"

    def __init__(self, action: str, code: int, description: str) -> None:
        self.action, self.code, self.description = action, code, description
        super().__init__(f"NATS has no room to {action}: {description} (error {code})")


class BrokerTooOld(BrokerError):
    """The server lacks features that Galley needs."""

    reason = "BrokerTooOld"

    def __init__(self, server: str, found: str, needed: str) -> None:
        self.server, self.found, self.needed = server, found, needed
        super().__init__(
            f"NATS at {server} is {found}; Galley needs {needed} or newer",
            f"run nats-server {needed} or newer with JetStream enabled (-js)",
        )


class BrokerRefused(BrokerError):
    """The broker answered with an error that Galley does not expect."""

    reason = "BrokerRefused"
    hint = "look at the log of nats-server; missing permissions can also cause this"

    def __init__(self, action: str, code: int, description: str) -> None:
        self.action, self.code, self.description = action, code, description
        super().__init__(f"NATS refused to {action}: {description}{f' (error {code})' if code else ''}")

    @property
    def missing(self) -> bool:
        """Whether the stream, consumer or message it was about is not there.

        Any other refusal says nothing of that: what has no leader for a moment is there.
        """
        return self.code in _MISSING


class AccessRefused(BrokerError):
    """Authentication failed: credentials are missing or not accepted."""

    reason = "AccessRefused"

    def __init__(self, server: str, credentials: str, problem: str) -> None:
        self.server, self.credentials, self.problem = server, credentials, problem
        super().__init__(
            f"NATS at {server} refused the connection: {problem}",
            f"check that {credentials} belong to this NATS. Credentials become invalid when its keys are "
            "replaced: "
            "fetch them again, and restart NATS if the Secret with its keys changed"
            if credentials
            else "the server requires credentials; pass --credentials or set GALLEY_CREDENTIALS",
        )


class CredentialsExpired(BrokerError):
    """Authentication failed: the credentials have expired."""

    reason = "CredentialsExpired"
    hint = (
        "fetch them again: the operator renews a queue's Secret long before it expires. If it did not, "
        "check the operator's log and the clocks of both machines"
    )

    def __init__(self, server: str, credentials: str, problem: str) -> None:
        self.server, self.credentials, self.problem = server, credentials, problem
        super().__init__(f"NATS at {server} refused the connection: {credentials} expired ({problem})")


class Distrust(StrEnum):
    """Why a server's certificate is not trusted."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    UNKNOWN_AUTHORITY = "unknown authority"
    OTHER_HOST = "other host"
    OTHER = "other"


_ADVICE = {
    Distrust.EXPIRED: "renew the server's certificate (the operator renews its own: look at its log), and "
    "check the clocks of both machines",
    Distrust.NOT_YET_VALID: "check the clocks of both machines",
    Distrust.UNKNOWN_AUTHORITY: "pass the certificate of its authority: --tls-ca, GALLEY_TLS_CA. On a "
    "cluster it is ca.crt of the Secret galley-QUEUE-producer; fetch it again if it is old",
    Distrust.OTHER_HOST: "use the name in the certificate as the address, or pass it: --tls-server-name, "
    "GALLEY_TLS_SERVER_NAME (nats.tls.hosts of the chart adds names)",
    Distrust.OTHER: "replace the certificate of the server",
}


class TlsFailed(BrokerError):
    """There is no encrypted connection to the broker; nothing was sent."""

    reason = "TlsFailed"
    hint = "check that NATS listens there and supports TLS 1.2 or newer"

    def __init__(self, server: str, problem: str, hint: str | None = None) -> None:
        self.server, self.problem = server, problem
        super().__init__(f"no encrypted connection to NATS at {server}: {problem}", hint)


class CertificateRefused(TlsFailed):
    """The server's certificate is not trusted; nothing was sent."""

    reason = "CertificateRefused"

    def __init__(self, server: str, distrust: Distrust, problem: str) -> None:
        self.distrust = distrust
        super().__init__(server, f"its certificate is not trusted ({problem})", _ADVICE[distrust])


class ClientCertificateRefused(TlsFailed):
    """The server requires a certificate of its clients, and there is none or another one."""

    reason = "ClientCertificateRefused"

    def __init__(self, server: str, certificate: str, problem: str) -> None:
        self.certificate = certificate
        ours = (
            f"{certificate} is not accepted"
            if certificate
            else "the server requires a certificate of clients"
        )
        super().__init__(
            server,
            f"{ours} ({problem})",
            "use a certificate of an authority that the server trusts, which has not expired"
            if certificate
            else "pass one: --tls-certificate and --tls-key, GALLEY_TLS_CERTIFICATE and GALLEY_TLS_KEY",
        )


class NotEncrypted(TlsFailed):
    """The server offers no TLS, and this client does not connect without; nothing was sent."""

    reason = "NotEncrypted"
    hint = (
        "turn on TLS in that NATS (nats.tls.enabled of the chart). If it has none on purpose, use a nats:// "
        "address and unset GALLEY_TLS_CA"
    )

    def __init__(self, server: str) -> None:
        super().__init__(server, "the server offers no TLS")


class NotAllowed(BrokerError):
    """The credentials do not permit this operation."""

    reason = "NotAllowed"
    hint = (
        "use credentials of that queue and of a role that may: producers submit and read, managers also "
        "cancel, workers settle. Only the operator may list what several queues share: name the queue "
        "(galley show QUEUE/ID)"
    )

    def __init__(self, subject: str, action: str = "publishing to") -> None:
        """Args: subject: of NATS; action: what was done with it."""
        self.subject, self.action = subject, action
        super().__init__(f"these credentials do not allow {action} {subject}")


class QueueConflict(BrokerError):
    """Streams with the queue's names exist and belong to another installation."""

    reason = "QueueConflict"
    hint = "use another namespace or NATS account, or remove the conflicting streams"

    def __init__(self, stream: str, owner: str, problem: str) -> None:
        self.stream, self.owner, self.problem = stream, owner, problem
        super().__init__(f"stream {stream} (of {owner}): {problem}")
