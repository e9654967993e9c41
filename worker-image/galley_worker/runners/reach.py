"""Which addresses a worker sends requests to: none that lead to the services of its own machine or cloud.

A user who may write a TaskQueue may run programs in its worker's pod anyway, so what the pod may reach is a
matter of its NetworkPolicy. The addresses refused here give out credentials to any process of a node.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_METADATA: Final = (
    ip_network("fd00:ec2::/32"),  # AWS: of instances, and the identities of pods
    ip_network("fd20:ce::254/128"),  # Google Cloud
    ip_network("168.63.129.16/32"),  # Azure: settings and certificates of the machine
    ip_network("100.100.100.200/32"),  # Alibaba Cloud
)
"""Metadata services of clouds whose address is not link-local."""

_TRANSLATED: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""Prefixes of NAT64: a gateway sends what goes there on to the IPv4 address in the last four bytes."""


class AddressRefused(OSError):
    """A host leads to an address that no request is sent to; the message says which."""


def check_address(host: str, text: str) -> None:
    """Return if requests may be sent to an address.

    Args:
        host: name of it, for people.
        text: the address.

    Raises:
        AddressRefused: if not.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        address = _embedded(address) or address
    if reason := _refusal(address):
        raise AddressRefused(f"{host} is {address}, {reason}")


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that requests to an IPv6 address are sent on to; None if there is none."""
    if any(address in prefix for prefix in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _refusal(address: IPv4Address | IPv6Address) -> str:
    if address.is_link_local or any(address in network for network in _METADATA):
        return "where a cloud's metadata service may be"
    if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
        return "which is no address of a server"
    return ""


class Resolver(AbstractResolver):
    """Looks up names, and refuses those that lead to an address that is refused.

    It is asked for each new connection, so a name cannot change between the check and its use.
    """

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            AddressRefused: if one of them is refused.
            OSError: if it is not known.
        """
        found = await self._resolver.resolve(host, port, family)
        for each in found:
            check_address(host, each["host"])
        return found

    async def close(self) -> None:
        """Close it."""
        await self._resolver.close()
