"""Mistakes in the login at an OpenID provider: whose token counts, and who waits for the provider."""

from typing import Final

from tests.mutants.mutant import Mutant

_ROOM: Final = "gateway/galley_gateway/oidc/"
TESTS: Final = {
    "provider": "tests/integration/galley_gateway/test_oidc.py",
    "mapping": "tests/unit/galley_gateway/test_login_settings.py",
}


def _of(path: str, name: str, old: str, new: str, breaks: str) -> Mutant:
    return Mutant(f"oidc/{path}: {name}", f"{_ROOM}{path}.py", old, new, breaks, (TESTS[path],))


MUTANTS: Final = (
    _of(
        "provider",
        "any audience will do",
        '            aud={"essential": True, "value": self.settings.client_id},\n',
        '            aud={"essential": True},\n',
        "a token that was made for another application opens this one",
    ),
    _of(
        "provider",
        "any issuer will do",
        '            iss={"essential": True, "value": self.settings.issuer},\n',
        '            iss={"essential": True},\n',
        "a token of another provider with a key of that name counts",
    ),
    _of(
        "provider",
        "a token without an end counts",
        '            exp={"essential": True},\n',
        "",
        "a token of which it is not known when it ends is good forever",
    ),
    _of(
        "provider",
        "who a token was handed to is not looked at",
        '        if claims.get("azp", ours) != ours or (\n',
        "        if False and (\n",
        "another application hands on a token it was given, and is another user here",
    ),
    _of(
        "provider",
        "any login will do",
        '        if claims.get("nonce") != nonce:\n',
        "        if False:\n",
        "a token from another login is put in as the answer to this one",
    ),
    _of(
        "provider",
        "a provider that calls itself another counts",
        "        if found.issuer != issuer:\n",
        "        if False:\n",
        "a server in the provider's place hands out its own addresses",
    ),
    _of(
        "provider",
        "all wait for a provider that is away",
        "        if self._failure and 0 <= self._clock() - self._failed_at < _AWAY_SECONDS:\n",
        "        if False:\n",
        "requests wait for ten seconds each, one after the other",
    ),
    _of(
        "provider",
        "known keys wait behind strangers",
        "            if not waits or (self._reading.locked() and kid in _ids_of(known)):\n",
        "            if not waits:\n",
        "those who are logged in wait for the provider because of a stranger's token",
    ),
    _of(
        "provider",
        "each unknown key is asked for",
        "        return age > _FRESH_SECONDS or (unknown and age > _KEYS_AGAIN_SECONDS)\n",
        "        return age > _FRESH_SECONDS or unknown\n",
        "tokens of strangers keep the provider busy",
    ),
    _of(
        "mapping",
        "names of Kubernetes are handed out",
        "        if name.startswith(_RESERVED):\n",
        "        if False:\n",
        "the provider makes a person system:admin",
    ),
    _of(
        "mapping",
        "groups of Kubernetes are handed out",
        "        return [name for name in named if not name.startswith(_RESERVED)]\n",
        "        return list(named)\n",
        "the provider makes a person a member of system:masters",
    ),
    _of(
        "mapping",
        "an address that is not verified is a name",
        '        if self.username_claim == "email" and claims.get("email_verified", True) is not True:\n',
        "        if False:\n",
        "a person takes the address of another",
    ),
    _of(
        "mapping",
        "claims that are required are not looked at",
        "            if claims.get(name) != value:\n",
        "            if False:\n",
        "people of another tenant log in",
    ),
)
