"""How the claims of an ID token become a user of the cluster: the rules of kube-apiserver. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from galley_gateway.access import User

_RESERVED: Final = "system:"
"""Names of Kubernetes itself: no provider may hand them out."""
_AUTHENTICATED: Final = "system:authenticated"
_LONGEST: Final = 253
_MOST_GROUPS: Final = 1000


class ClaimsRefused(Exception):
    """The claims make no user; the message says which one is wrong."""


@dataclass(frozen=True)
class ClaimMapping:
    """Which claims are what of a user."""

    username_claim: str = "sub"
    username_prefix: str = "oidc:"
    groups_claim: str = "groups"
    groups_prefix: str = "oidc:"
    required: tuple[tuple[str, str], ...] = ()
    """Claims, and the values they must have."""

    def user_of(self, claims: Mapping[str, Any]) -> User:
        """Return the user that verified claims are of.

        Raises:
            ClaimsRefused: if they make none.
        """
        for name, value in self.required:
            if claims.get(name) != value:
                raise ClaimsRefused(f"its claim {name!r} is not {value!r}")
        given: Any = claims.get(self.username_claim)
        if not isinstance(given, str) or not 0 < len(given) <= _LONGEST or not given.isprintable():
            raise ClaimsRefused(
                f"its claim {self.username_claim!r}, the name of the user, is missing or no name"
            )
        if self.username_claim == "email" and claims.get("email_verified", True) is not True:
            raise ClaimsRefused("its address of e-mail is not verified")
        name = self.username_prefix + given
        if name.startswith(_RESERVED):
            raise ClaimsRefused(f"the name of its user begins with {_RESERVED!r}, which Kubernetes reserves")
        uid = hashlib.sha256(f"{claims['iss']}\0{claims['sub']}".encode()).hexdigest()[:32]
        return User(name, uid, (*self._groups_of(claims), _AUTHENTICATED))

    def _groups_of(self, claims: Mapping[str, Any]) -> list[str]:
        given: Any = claims.get(self.groups_claim) if self.groups_claim else None
        groups: Any = [given] if isinstance(given, str) else given or []
        if not isinstance(groups, list) or not all(isinstance(each, str) for each in groups):
            raise ClaimsRefused(f"its claim {self.groups_claim!r} is not a list of names")
        if len(groups) > _MOST_GROUPS:
            raise ClaimsRefused(f"its claim {self.groups_claim!r} has {len(groups)} names")
        named = dict.fromkeys(self.groups_prefix + each for each in groups)
        return [name for name in named if not name.startswith(_RESERVED)]
