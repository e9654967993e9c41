"""When a connection looks for newer credentials, and what it makes of a server's refusal."""

from pathlib import Path

import pytest

from galley.broker.creds_file import format_creds, parse_creds, read_creds
from galley.broker.errors import AccessRefused, CredentialsExpired
from galley.broker.identity import Identity, refusal
from galley.broker.permissions import Role, inbox_of, permissions_of
from galley.errors import CredentialsInvalid
from galley_operator.credentials.account import Account
from galley_operator.credentials.queue_roles import Holder, credentials_of
from galley_operator.credentials.trust import made_keys

BEGIN = 1_800_000_000.0
LIFE = 1000.0
ACCOUNT = Account.read(made_keys(BEGIN), "keys")


def creds(begin: float = BEGIN, life: float = LIFE) -> str:
    return credentials_of(ACCOUNT, Holder(Role.WORKER, "shop", "images"), begin, life)


class Source:
    """A file that changes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self) -> str:
        return self.text


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr("galley.broker.identity.time.time", lambda: BEGIN)
    return Source(creds())


@pytest.fixture
def identity(source: Source) -> Identity:
    """Of a connection made when the credentials were new."""
    identity = Identity(source)
    assert identity.sign("nonce")
    return identity


def test_nothing_is_looked_for_in_the_first_half(identity: Identity, source: Source) -> None:
    source.text = creds(BEGIN + 400)
    assert not identity.renewed(BEGIN + 499)
    assert identity.renewed(BEGIN + 601)
    assert 500 <= identity.pause(BEGIN) <= 600


def test_connections_made_together_are_not_renewed_together(source: Source) -> None:
    identities = [Identity(source) for _ in range(20)]
    for identity in identities:
        identity.sign("nonce")
    assert len({round(identity.pause(BEGIN), 3) for identity in identities}) > 15


def test_the_same_credentials_and_broken_ones_are_no_newer_ones(identity: Identity, source: Source) -> None:
    assert not identity.renewed(BEGIN + 700)
    source.text = "half a file"
    assert not identity.renewed(BEGIN + 700)
    assert identity.pause(BEGIN + 700) == LIFE / 20


def test_token_and_signature_are_of_one_reading(identity: Identity, source: Source) -> None:
    before = parse_creds(source.text, "x").token
    source.text = creds(BEGIN + 400)
    assert identity.token() == before.encode()


def test_a_refusal_is_told_from_other_troubles(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "nats: 'Authorization Violation'"
    assert refusal(identity, "nats://x", "connection reset") is None
    assert isinstance(refusal(identity, "nats://x", said), AccessRefused)
    assert isinstance(refusal(None, "nats://x", said), AccessRefused)
    monkeypatch.setattr("galley.broker.identity.time.time", lambda: BEGIN + LIFE)
    assert isinstance(refusal(identity, "nats://x", said), CredentialsExpired)


def test_inboxes_are_those_the_credentials_allow() -> None:
    assert parse_creds(creds(), "x").inbox == "_INBOX.worker.shop.images"
    assert parse_creds(ACCOUNT.credentials("operator", None), "x").inbox == "_INBOX"


@pytest.mark.parametrize("role", Role)
def test_a_roles_inbox_is_its_own(role: Role) -> None:
    inboxes = [each for each in permissions_of(role, "shop", "images").subscribe if each.startswith("_INBOX")]
    assert inboxes == [f"{inbox_of(role, 'shop', 'images')}.>"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no token"), (format_creds("a", "SU"), "cannot be read"), (format_creds("a.!.c", "SU"), "be read")],
)
def test_a_file_that_is_none_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "nats.creds"
    path.write_text(text)
    with pytest.raises(CredentialsInvalid, match=words) as error:
        read_creds(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsInvalid, match="No such file"):
        read_creds(tmp_path / "nats.creds")
