"""Mistakes in the gateway: whose token it is, what they may do, and what gets through the door."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "gateway/galley_gateway/"
ACCESS: Final = "tests/integration/galley_gateway/test_access.py"
ORIGIN: Final = "tests/unit/galley_gateway/test_origin.py"
HOSTILE: Final = "tests/integration/galley_gateway/test_hostile.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    return Mutant(f"{path}: {name}", f"{_ROOM}{path}.py", old, new, breaks, tests, survives)


MUTANTS: Final = (
    _of(
        "cluster_access",
        "no token is a question",
        "        if not token:\n",
        "        if False:\n",
        "the API server is asked about empty tokens",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "a token of two words is another token",
        "        if len(token.split()) > 1 or not token.isprintable():\n",
        "        if False:\n",
        "a rate or a refusal that counts for a token is passed by with a word after it",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "a token of another audience counts",
        '        if self._audiences and not set(status.get("audiences", ())) & set(self._audiences):\n',
        "        if False:\n",
        "a token that was made for another service opens this one",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "a wrong token names a user",
        '        if not status.get("authenticated"):\n',
        "        if False:\n",
        "wrong tokens are accepted",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "guesses keep users out",
        "        if key not in self._accepted:\n",
        "        if True:\n",
        "anyone who guesses locks all users out",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "guesses are all asked about",
        '            self._unknown.take("")\n',
        "            pass\n",
        "guesses keep the API server busy",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "a refused token stays accepted",
        "        self._accepted.pop(key, None)\n",
        "        pass\n",
        "a token that was taken away is asked about without a limit",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "a denial is passed over",
        ' and not status.get("denied")\n',
        "\n",
        "an authorizer that denies is not heard",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "a right on one queue counts for all",
        '"subresource": part, "name": queue}',
        '"subresource": part}',
        "a Role for one queue is asked about as one for all, and lets its users down",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "rights on one queue are not asked for",
        "            if queue:\n                part",
        "            if False:\n                part",
        "a Role for one queue gives no access to it",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "one user's right is remembered for another",
        "        key = (user, tuple(sorted(attributes.items())))\n",
        "        key = tuple(sorted(attributes.items()))\n",
        "the second user has the rights of the first",
        ACCESS,
    ),
    _of(
        "cluster_access",
        "no answer is a yes",
        "            raise AccessUnknown(error.reason) from error\n",
        '            return {"allowed": True, "authenticated": True, "user": {"username": "x"}}\n',
        "everything is allowed while the API server is away",
        ACCESS,
    ),
    _of(
        "remembered",
        "answers do not expire",
        "        if known is not None and known[0] > self._clock():\n",
        "        if known is not None:\n",
        "a right that was taken away works on",
        ACCESS,
    ),
    _of(
        "remembered",
        "one who goes ends the question of the others",
        "        return await asyncio.shield(asking)\n",
        "        return await asking\n",
        "a client that disconnects makes another's request fail",
        ACCESS,
    ),
    _of(
        "door",
        "any host will do",
        '        if len(given) > 1 or (self._hosts and _name_of("".join(given)) not in self._hosts):\n',
        "        if len(given) > 1:\n",
        "a page whose name was made to lead to this machine reaches a laptop's queues",
        HOSTILE,
    ),
    _of(
        "door",
        "forms of other sites are taken",
        '    if headers.get(b"sec-fetch-site", b"none") not in {b"same-origin", b"none"}:\n',
        "    if False:\n",
        "a page of another site submits tasks with the user's cookie",
        HOSTILE,
    ),
    _of(
        "door",
        "other origins are taken",
        '    if b"origin" in headers and urlsplit(origin).netloc != headers.get(b"host", b"").decode("latin-1"):\n',
        "    if False:\n",
        "a page of another site submits tasks with the user's cookie",
        HOSTILE,
    ),
    _of(
        "door",
        "a body that hides its size is read whole",
        "            if self._read > self._limits.body_bytes:\n",
        "            if False:\n",
        "one request takes all memory",
        HOSTILE,
    ),
    _of(
        "door",
        "an announced size is not looked at",
        "        if not given.isdigit() or int(given) > limits.body_bytes:\n",
        "        if False:\n",
        "100 MB are read before they are refused",
        HOSTILE,
    ),
    _of(
        "door",
        "slow bodies are waited for",
        "            async with asyncio.timeout_at(self._until):\n",
        "            async with asyncio.timeout_at(None):\n",
        "slow clients take all connections",
        HOSTILE,
    ),
    _of(
        "limits",
        "places are not given back",
        "                counts[name] -= 1\n",
        "                pass\n",
        "after 2,000 waits no request can wait",
        HOSTILE,
    ),
    _of(
        "limits",
        "one user may take all places",
        "            if taken >= most:\n",
        "            if False:\n",
        "one user's waits keep all others out",
        HOSTILE,
    ),
    _of(
        "origin",
        "the header of anyone counts",
        "        if not self._networks or not self._trusts(_address(found)):\n",
        "        if not self._networks:\n",
        "who has changed something says in the audit that it was another address",
        ORIGIN,
    ),
    _of(
        "origin",
        "the header is read from the left",
        '.split(",")[: -_HOPS - 1 : -1]:\n',
        '.split(",")[:_HOPS]:\n',
        "what a client sends in the header is in the audit, and not its address",
        ORIGIN,
    ),
    _of(
        "pages/paths",
        "forms lead back to other sites",
        "    return whole if ours and parts.path != request.url.path else otherwise\n",
        '    return request.headers.get("referer", otherwise)\n',
        "the way back from an error leads to a page of an attacker",
        "tests/integration/galley_gateway/test_refusals.py",
    ),
)
