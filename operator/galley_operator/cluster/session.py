"""A bare HTTP session with our identity, for a library that speaks to the API server by itself."""

import aiohttp

from galley_operator.cluster.config import ClusterConfig


def session_for(config: ClusterConfig) -> aiohttp.ClientSession:
    """Return a session whose requests bear the token of the moment, however often it is renewed."""

    async def identify(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if config.token is not None:
            request.headers["Authorization"] = f"Bearer {config.token.text()}"
        answer = await send(request)
        if answer.status == 401 and config.token is not None:
            config.token.refused()
        return answer

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=True if config.tls is None else config.tls),
        middlewares=(identify,),
    )
