"""The settings of a login at an OpenID provider."""

from pathlib import Path

import pytest

from galley_gateway.errors import GatewaySettingsInvalid
from galley_gateway.oidc.mapping import ClaimMapping, ClaimsRefused
from galley_gateway.settings import GatewaySettings, read_settings

GOOD = {
    "GALLEY_GATEWAY_OIDC_ISSUER": "https://login.example.com/realms/team",
    "GALLEY_GATEWAY_OIDC_CLIENT_ID": "galley",
    "GALLEY_GATEWAY_URL": "https://galley.example.com/",
}


def test_without_an_issuer_there_is_no_provider() -> None:
    assert GatewaySettings().oidc() is None
    assert GatewaySettings().oidc_trust() is None


def test_all_that_is_set_reaches_the_provider(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    more = {
        "OIDC_CLIENT_SECRET_FILE": str(secret), "OIDC_USERNAME_CLAIM": "email", "OIDC_USERNAME_PREFIX": "-",
        "OIDC_GROUPS_CLAIM": "roles", "OIDC_GROUPS_PREFIX": "team:", "OIDC_SCOPES": "openid roles",
        "OIDC_REQUIRED_CLAIMS": "hd=example.com, tier = 1",
    }  # fmt: skip
    settings = read_settings(GOOD | {f"GALLEY_GATEWAY_{name}": value for name, value in more.items()}).oidc()
    assert settings is not None
    assert settings.redirect_url == "https://galley.example.com/ui/login/callback"
    assert (settings.client_secret, settings.scopes) == ("hush", "openid roles")
    assert settings.mapping == ClaimMapping(
        "email", "", "roles", "team:", (("hd", "example.com"), ("tier", "1"))
    )
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"GALLEY_GATEWAY_URL": ""}, "needs oidc_client_id and url"),
        ({"GALLEY_GATEWAY_OIDC_CLIENT_ID": ""}, "needs oidc_client_id and url"),
        ({"GALLEY_GATEWAY_URL": "http://galley.example.com"}, "url is not an address"),
        ({"GALLEY_GATEWAY_OIDC_ISSUER": "http://login.example.com"}, "oidc_issuer is not an address"),
        ({"GALLEY_GATEWAY_OIDC_ISSUER": "https://login.example.com?a=b"}, "oidc_issuer is not an address"),
        ({"GALLEY_GATEWAY_OIDC_SCOPES": "profile"}, "lacks openid"),
        ({"GALLEY_GATEWAY_OIDC_REQUIRED_CLAIMS": "hd"}, "not NAME=VALUE"),
    ],
)
def test_what_cannot_work_ends_the_start_with_a_reason(changed: dict[str, str], says: str) -> None:
    with pytest.raises(GatewaySettingsInvalid, match=says):
        read_settings(GOOD | changed)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings = read_settings(
        GOOD
        | {
            "GALLEY_GATEWAY_OIDC_CLIENT_SECRET_FILE": str(tmp_path / "none"),
            "GALLEY_GATEWAY_OIDC_CA": str(tmp_path / "none"),
        }
    )
    with pytest.raises(GatewaySettingsInvalid, match="CLIENT_SECRET_FILE"):
        settings.oidc()
    with pytest.raises(GatewaySettingsInvalid, match="OIDC_CA"):
        settings.oidc_trust()


def test_claims_make_a_user_as_kube_apiserver_makes_one() -> None:
    claims = {
        "iss": "https://i",
        "sub": "7",
        "email": "ada@example.com",
        "email_verified": True,
        "groups": "ops",
    }
    user = ClaimMapping("email", "").user_of(claims)
    assert (user.name, user.groups) == ("ada@example.com", ("oidc:ops", "system:authenticated"))
    assert ClaimMapping(groups_claim="").user_of(claims).groups == ("system:authenticated",)
    for name in ("system:masters", "system:authenticated"):
        assert (
            name
            not in ClaimMapping(groups_prefix="").user_of(claims | {"groups": ["system:masters"]}).groups[:-1]
        )
    for wrong in ({"email_verified": False}, {"email": "system:admin"}, {"email": ["a"]}, {"email": "a\nb"}):
        with pytest.raises(ClaimsRefused):
            ClaimMapping("email", "").user_of(claims | wrong)
    for value in ("other", ["example.com"], None):
        with pytest.raises(ClaimsRefused, match="hd"):
            ClaimMapping(required=(("hd", "example.com"),)).user_of(claims | {"hd": value})
