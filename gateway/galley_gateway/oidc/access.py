"""Access of people with an ID token of a provider, beside those with a token of the cluster."""

from galley_gateway.access import Access, Right, User
from galley_gateway.oidc.provider import Provider


class OidcAccess:
    """Identifies people by their ID token, and leaves what they may do, and all others, to another access."""

    login = True

    def __init__(self, provider: Provider, cluster: Access) -> None:
        """Args: provider: whose ID tokens count. cluster: what decides on all else."""
        self._provider, self._cluster = provider, cluster

    async def identify(self, token: str) -> User:
        """Return whose token it is.

        Raises:
            NotIdentified: if neither the provider nor the cluster knows it.
            ProviderUnavailable, AccessUnknown: if one of them does not answer.
        """
        if self._provider.issued(token):
            return await self._provider.identify(token)
        return await self._cluster.identify(token)

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        """Return if the user has a right, as the cluster says.

        Raises:
            NotPermitted, AccessUnknown: as `Access.check`.
        """
        await self._cluster.check(user, right, namespace, queue)
