"""A key as NATS writes them: its first letter says whose it is (Operator, Account, User)."""

import os
from enum import IntEnum
from typing import Self

import nkeys  # type: ignore[import-untyped]

from galley_operator.errors import KeysInvalid


class Owner(IntEnum):
    """Whose a key is; the value is the byte it begins with."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


class KeyPair:
    """A private key (`S...`) with its public one; the private one is shown nowhere."""

    def __init__(self, seed: str, owner: Owner, source: str = "a key") -> None:
        """Read a key.

        Args:
            seed: the private key.
            owner: whose it has to be.
            source: where it is from, for the message of an error.

        Raises:
            KeysInvalid: if it is no key, or belongs to another owner.
        """
        self.seed = seed.strip()
        try:
            prefix, _ = nkeys.decode_seed(self.seed.encode())
            self._pair = nkeys.from_seed(self.seed.encode())
            self.public: str = self._pair.public_key.decode().rstrip("=")
        except (nkeys.NkeysError, ValueError) as error:
            raise KeysInvalid(source, str(error) or "it is no key") from None
        if prefix != owner:
            raise KeysInvalid(source, f"it is not the key of an {owner.name.lower()} (S{owner.name[0]}...)")

    @classmethod
    def made(cls, owner: Owner) -> Self:
        """Return a new key."""
        return cls(nkeys.encode_seed(os.urandom(32), owner).decode(), owner)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of data."""
        signature: bytes = self._pair.sign(data)
        return signature

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether a signature of data is ours."""
        try:
            return bool(self._pair.verify(data, signature))
        except nkeys.ErrInvalidSignature:
            return False
