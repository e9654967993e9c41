"""Where a request comes from, as a client that lies would have it."""

import pytest

from galley_gateway.errors import GatewaySettingsInvalid
from galley_gateway.origin import TrustedProxies, networks
from galley_gateway.settings import GatewaySettings, read_settings

PROXIES = TrustedProxies(networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]))
CLIENT, PROXY, OUTER = "203.0.113.9", "10.1.2.3", "192.0.2.7"
LONG = ", ".join(["10.0.0.1"] * 40)


@pytest.mark.parametrize(
    ("peer", "given", "origin"),
    [
        # No proxy of ours: whatever it sends, it is itself.
        (CLIENT, ["1.1.1.1"], CLIENT),
        (CLIENT, [PROXY], CLIENT),
        (CLIENT, [], CLIENT),
        ("11.0.0.1", ["1.1.1.1"], "11.0.0.1"),
        # One proxy, which adds the client at the right; what the client sent stands left of it.
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"1.1.1.1, {CLIENT}"], CLIENT),
        (PROXY, ["1.1.1.1", CLIENT], CLIENT),
        (PROXY, [f"10.9.9.9, {CLIENT}"], CLIENT),
        (PROXY, [f"{CLIENT}, 1.1.1.1"], "1.1.1.1"),
        # Several proxies: read from the right as far as they are ours.
        (PROXY, [f"1.1.1.1, {CLIENT}, {OUTER}"], CLIENT),
        (PROXY, [f"{CLIENT}, {OUTER}, 10.4.4.4"], CLIENT),
        (PROXY, [f"{OUTER}, 10.4.4.4"], OUTER),
        # A port, a bracket, an address of IPv4 in one of IPv6.
        (PROXY, [f"{CLIENT}:4711"], CLIENT),
        (PROXY, ["[2001:db9::1]:4711"], "2001:db9::1"),
        (f"::ffff:{PROXY}", [f"::ffff:{CLIENT}"], CLIENT),
        ("2001:db8::5", [CLIENT], CLIENT),
        # What is no address ends it at who passed it on.
        (PROXY, ["<script>"], PROXY),
        (PROXY, ["fe80::1%<script>"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, [], PROXY),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, [f"{CLIENT}, unknown, {OUTER}"], OUTER),
        (PROXY, ["10.0.0.1\r\nX: y"], PROXY),
        (PROXY, ["1" * 10_000], PROXY),
        (PROXY, [f"{CLIENT}, {LONG}"], "10.0.0.1"),
        # No network at all, as of a socket in the file system.
        ("", [CLIENT], ""),
        ("unix:", [CLIENT], "unix:"),
    ],
)
def test_no_client_names_its_own_origin(peer: str, given: list[str], origin: str) -> None:
    headers = [(b"x-forwarded-for", each.encode()) for each in given]
    headers += [(b"forwarded", b"for=1.1.1.1"), (b"x-real-ip", b"1.1.1.1")]
    scope = {"client": (peer, 1234) if peer else None, "headers": headers}
    assert PROXIES.origin(scope) == origin
    assert TrustedProxies().origin(scope) == peer


def test_networks_are_off_by_default_and_read_from_the_settings() -> None:
    scope = {"client": (PROXY, 1), "headers": [(b"x-forwarded-for", CLIENT.encode())]}
    assert GatewaySettings().proxies.origin(scope) == PROXY
    set_ = read_settings({"GALLEY_GATEWAY_TRUSTED_PROXIES": "192.0.2.7, 10.0.0.0/8,"})
    assert set_.proxies.origin(scope) == CLIENT


@pytest.mark.parametrize(
    "text", ["0.0.0.0/0", "10.0.0.0/8,::/0", "10.1.2.3/8", "ingress", "10.0.0", "10.0.0.0/99"]
)
def test_what_is_no_network_or_all_of_them_ends_the_start(text: str) -> None:
    with pytest.raises(GatewaySettingsInvalid, match="TRUSTED_PROXIES"):
        read_settings({"GALLEY_GATEWAY_TRUSTED_PROXIES": text})
