"""What clients of NATS get to encrypt their connections, and where the operator has it from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from galley.tls import Tls
from galley_operator.errors import CertificateInvalid

CA: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The texts of the files, in PEM; what is empty is not needed."""

    ca: str = ""
    """Certificates of the authorities to trust; empty for those of the system."""
    certificate: str = ""
    """A certificate for clients, for a NATS that requires one."""
    key: str = ""
    server_name: str = ""
    """Name that the certificate of NATS has, if not the host of its address."""

    @property
    def entries(self) -> dict[str, str]:
        """The entries of a Secret from which clients take their files."""
        found = {CA: self.ca, CERTIFICATE: self.certificate, KEY: self.key}
        return {name: text for name, text in found.items() if text}


def read_files(tls: Tls) -> ClientTls:
    """Return what clients get for a NATS of others, from the operator's own files.

    Raises:
        CertificateInvalid: if one of them cannot be read.
    """

    def text(path: Path | None) -> str:
        if path is None:
            return ""
        try:
            return path.read_text("ascii")
        except (OSError, ValueError) as error:
            raise CertificateInvalid(str(path), str(error)) from None

    assert not callable(tls.ca), "the operator reads a file"
    return ClientTls(text(tls.ca), text(tls.certificate), text(tls.key or tls.certificate), tls.server_name)
