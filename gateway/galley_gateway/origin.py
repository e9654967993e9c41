"""Where a request comes from, when proxies stand before the gateway. Pure."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

_HOPS: Final = 32
"""Entries of X-Forwarded-For that are looked at."""

Network = IPv4Network | IPv6Network


class TrustedProxies:
    """The proxies whose X-Forwarded-For counts; any client can send that header."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        """Args: networks: of the proxies; none by default."""
        self._networks = tuple(networks)

    def origin(self, scope: Mapping[str, Any]) -> str:
        """Return the address that a request came from; empty if it came by no network.

        Of the header, proxies write the right end. It is read from there: the first address that is not one
        of theirs is where the request came from, and what stands left of it is what that one says of itself.
        """
        client = scope.get("client")
        found = str(client[0]) if client else ""
        if not self._networks or not self._trusts(_address(found)):
            return found
        lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for entry in ",".join(lines).split(",")[: -_HOPS - 1 : -1]:
            address = _address(entry.strip())
            if address is None:  # what the proxy before knows is where it ends
                return found
            found = str(address)
            if not self._trusts(address):
                return found
        return found

    def _trusts(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in an entry, which may have a port; None if there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if "%" in text:  # the zone of an address may be any text
        return None
    # A socket for both families shows an address of the fourth as one of the sixth.
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of addresses and CIDRs.

    Raises:
        ValueError: if one is none, or contains all addresses: then any client could name any origin.
    """
    found = tuple(ip_network(name) for name in names)
    for each in found:
        if each.prefixlen == 0:
            raise ValueError(f"{each} contains all addresses, so that any client could name any origin")
    return found
