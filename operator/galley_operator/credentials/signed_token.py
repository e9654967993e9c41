"""Signed tokens as NATS has them: a JWT whose algorithm is `ed25519-nkey`."""

import base64
import hashlib
from typing import Any, Final

import msgspec
import nkeys  # type: ignore[import-untyped]

from galley_operator.credentials.key_pair import KeyPair

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}


def sign(claims: dict[str, Any], issuer: KeyPair) -> str:
    """Return the claims as a token of that issuer; `iss` and `jti` are added."""
    whole = {**claims, "iss": issuer.public}
    digest = hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).digest()
    whole["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_encoded(_HEADER)}.{_encoded(whole)}"
    return f"{signed}.{_text(issuer.sign(signed.encode()))}"


def verified(token: str, issuer: KeyPair) -> dict[str, Any] | None:
    """Return what a token claims, or None if it is not of that issuer or was changed."""
    signed, _, signature = token.rpartition(".")
    try:
        if not issuer.verifies(signed.encode(), _bytes(signature)):
            return None
        claims: dict[str, Any] = msgspec.json.decode(_bytes(signed.partition(".")[2]))
    except (ValueError, nkeys.NkeysError):
        return None
    return claims if claims.get("iss") == issuer.public else None


def _encoded(part: object) -> str:
    return _text(msgspec.json.encode(part))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
