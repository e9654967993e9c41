"""What the gateway is told at its start, all through its environment.

How it reaches NATS is said as for any client: `GALLEY_SERVER`, `GALLEY_CREDENTIALS`, `GALLEY_TLS_CA`.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from galley_gateway.errors import GatewaySettingsInvalid
from galley_gateway.limits import Limits
from galley_gateway.oidc.mapping import ClaimMapping
from galley_gateway.oidc.provider import OidcSettings
from galley_gateway.origin import TrustedProxies, networks

PREFIX: Final = "GALLEY_GATEWAY_"


class GatewaySettings(BaseModel):
    """The settings of one gateway process, each the variable `GALLEY_GATEWAY_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    namespaces: str = ""
    """Namespaces that the dashboard offers to those who may see them, separated by commas. When left out,
    all that have queues. A user with rights in another namespace can use it as well."""
    hosts: str = ""
    """Names under which the gateway is reached, separated by commas; requests for others are refused. When
    left out, any: it relies on tokens alone."""
    audiences: str = ""
    """Accepted audiences of tokens, separated by commas; the API server's own when left
    out."""
    trusted_proxies: str = ""
    """Addresses and CIDRs of proxies, separated by commas, whose `X-Forwarded-For` says where a request came
    from, for the audit; when left out, it is the address that the connection comes from."""
    host: str = "0.0.0.0"  # noqa: S104 - requests come from outside the pod
    """Address the port is bound to."""
    port: int = Field(8080, ge=1, le=65535)
    """Port of the API and the dashboard."""
    health_port: int = Field(8081, ge=0, le=65535)
    """Port of /livez, /readyz and /metrics; 0 serves none."""
    body_bytes: int = Field(1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    """Bytes a request may have."""
    body_seconds: float = Field(10.0, gt=0, le=600)
    """Seconds for the head of a request to arrive, and then for its body."""
    rate: float = Field(5000.0, gt=0)
    """Requests a second of one user; twice as many in the first second."""
    waits: int = Field(2000, ge=1)
    """Requests that wait for tasks or follow something at once, of all users. Each open page is one.
    One namespace has at most three quarters of them."""
    waits_of_user: int = Field(1000, ge=1)
    """The same, of one user."""
    connections: int = Field(4000, ge=1)
    """Connections at once."""
    kubeconfig: Path | None = None
    """File that says how to reach the cluster; the pod's own ServiceAccount when left out."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least level that is logged."""

    url: str = ""
    """Address under which people reach the gateway, such as `https://galley.example.com`. Needed for a login
    at an OpenID provider, which has to know `URL/ui/login/callback` as a redirect address."""
    oidc_issuer: str = ""
    """Issuer of an OpenID provider at which people log in; left out, they paste a token of the cluster."""
    oidc_client_id: str = ""
    """Our name at the provider; its ID tokens have to be for it."""
    oidc_client_secret_file: Path | None = None
    """File with our secret at the provider; left out for a public client."""
    oidc_ca: Path | None = None
    """File with the authorities of the provider's certificate; those of the system when left out."""
    oidc_scopes: str = "openid profile email"
    """What the provider is asked for; many need one more for groups."""
    oidc_username_claim: str = "sub"
    """Claim that names the user, as `--oidc-username-claim` of kube-apiserver."""
    oidc_username_prefix: str = "oidc:"
    """Put before the name of each user, to keep them apart from others of the cluster; `-` puts none."""
    oidc_groups_claim: str = "groups"
    """Claim that lists the groups of the user."""
    oidc_groups_prefix: str = "oidc:"
    """Put before the name of each group; `-` puts none. Groups that begin with `system:` never count."""
    oidc_required_claims: str = ""
    """Claims that an ID token must have, as `NAME=VALUE`, separated by commas."""

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, text: str) -> str:
        networks(listed(text))
        return text

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        if not self.oidc_issuer:
            return self
        if not self.oidc_client_id or not self.url:
            raise ValueError("oidc_issuer needs oidc_client_id and url")
        for name, address in (("oidc_issuer", self.oidc_issuer), ("url", self.url)):
            parts = urlsplit(address)
            loopback = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
            if (
                (parts.scheme != "https" and not loopback)
                or not parts.hostname
                or parts.query
                or parts.fragment
            ):
                raise ValueError(f"{name} is not an address that begins with https://")
        if "openid" not in self.oidc_scopes.split():
            raise ValueError("oidc_scopes lacks openid")
        wrong = [each for each in listed(self.oidc_required_claims) if "=" not in each]
        if wrong:
            raise ValueError(f"oidc_required_claims: {wrong[0][:80]!r} is not NAME=VALUE")
        return self

    def oidc(self) -> OidcSettings | None:
        """Return who we are to the OpenID provider; None if there is none.

        Raises:
            GatewaySettingsInvalid: if the file with our secret cannot be read.
        """
        if not self.oidc_issuer:
            return None
        secret = ""
        if self.oidc_client_secret_file is not None:
            try:
                secret = self.oidc_client_secret_file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise GatewaySettingsInvalid(f"{PREFIX}OIDC_CLIENT_SECRET_FILE: {error}") from error
        required = tuple(_pair(each) for each in listed(self.oidc_required_claims))
        mapping = ClaimMapping(
            self.oidc_username_claim, _prefix(self.oidc_username_prefix), self.oidc_groups_claim,
            _prefix(self.oidc_groups_prefix), required,
        )  # fmt: skip
        callback = f"{self.url.rstrip('/')}/ui/login/callback"
        return OidcSettings(
            self.oidc_issuer, self.oidc_client_id, callback, secret, self.oidc_scopes, mapping
        )

    def oidc_trust(self) -> ssl.SSLContext | None:
        """Return by what the provider's certificate is checked; None means the authorities of the system.

        Raises:
            GatewaySettingsInvalid: if the file cannot be read.
        """
        if self.oidc_ca is None:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.oidc_ca))
        except OSError as error:
            raise GatewaySettingsInvalid(f"{PREFIX}OIDC_CA: {error}") from error

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies that say where requests come from."""
        return TrustedProxies(networks(listed(self.trusted_proxies)))

    @property
    def limits(self) -> Limits:
        """The limits of requests."""
        return Limits(
            self.body_bytes, self.body_seconds, self.rate, self.waits, self.waits_of_user, self.connections
        )


def _prefix(given: str) -> str:
    return "" if given == "-" else given


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def listed(text: str) -> tuple[str, ...]:
    """Return the entries of a list that is separated by commas."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def read_settings(environment: Mapping[str, str]) -> GatewaySettings:
    """Return the settings in an environment.

    Raises:
        GatewaySettingsInvalid: naming each variable that is wrong.
    """
    given = {
        name: environment[PREFIX + name.upper()]
        for name in GatewaySettings.model_fields
        if environment.get(PREFIX + name.upper())
    }
    try:
        return GatewaySettings.model_validate(given)
    except ValidationError as error:
        wrong = [f"{PREFIX}{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()]
        raise GatewaySettingsInvalid("; ".join(wrong)) from None
