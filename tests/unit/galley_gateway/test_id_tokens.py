"""ID tokens with headers that no provider makes."""

import base64
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet

from galley_gateway.errors import NotIdentified
from galley_gateway.oidc.provider import OidcSettings, Provider

ISSUER = "https://login.example.com"


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "header",
    [
        {"kid": [1]}, {"kid": {}}, {"kid": 5}, {"crit": 5}, {"crit": [[]]}, {"crit": {"a": 1}}, {"alg": []},
        {"typ": 5}, {"jwk": 5}, {"b64": False, "crit": ["b64"]},
    ],
)  # fmt: skip
async def test_whatever_stands_in_its_header_a_forged_token_is_refused(header: dict[str, Any]) -> None:
    provider = Provider(OidcSettings(ISSUER, "galley", "https://galley.example.com"))
    key = ECKey.generate_key("P-256", {"kid": "one"})
    provider._keys, provider._keys_at = KeySet([key]), provider._clock()
    token = f"{part({'alg': 'ES256', **header})}.{part({'iss': ISSUER})}.{'A' * 86}"
    assert provider.issued(token)
    with pytest.raises(NotIdentified):
        await provider.identify(token)
