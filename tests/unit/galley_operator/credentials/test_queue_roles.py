"""When a queue's credentials are good, and when it is time for new ones."""

import re
from pathlib import Path

import pytest

from galley.broker.creds_file import format_creds, parse_creds
from galley.broker.permissions import Role
from galley_operator.credentials.account import Account
from galley_operator.credentials.key_pair import KeyPair, Owner
from galley_operator.credentials.queue_roles import Holder, credentials_of, due
from galley_operator.credentials.signed_token import sign, verified
from galley_operator.credentials.trust import made_keys
from galley_operator.errors import KeysInvalid

NOW = 1_800_000_000.0
ROOT = Path(__file__).parents[4]
WEEK = 7 * 24 * 3600
ACCOUNT = Account.read(made_keys(NOW), "keys")
WORKER = Holder(Role.WORKER, "shop", "images")
GOOD = credentials_of(ACCOUNT, WORKER, NOW)


@pytest.mark.parametrize("role", Role)
def test_credentials_of_the_longest_names_fit_into_a_line_of_the_chart_s_nats(role: Role) -> None:
    chart = (ROOT / "charts/galley/templates/nats/config.yaml").read_text()
    limit = re.search(r"^max_control_line: (\d+)KB$", chart, re.MULTILINE)
    assert limit is not None
    token = parse_creds(credentials_of(ACCOUNT, Holder(role, "n" * 63, "q" * 63), NOW), "made").token
    # The rest of the line is options and a signature. Twice as much is left for rights to come.
    assert 2 * (len(token) + 1024) < int(limit[1]) * 1024


@pytest.mark.parametrize("age", [0, WEEK / 3 - 1, -200])
def test_credentials_are_good_for_a_third_of_a_week(age: float) -> None:
    assert due(GOOD, ACCOUNT, WORKER, NOW + age) == ""


def test_they_end_after_a_week() -> None:
    claims = parse_creds(GOOD, "x").claims
    assert (claims.iat, claims.exp) == (NOW, NOW + WEEK)


@pytest.mark.parametrize(
    ("present", "age", "reason"),
    [
        (None, 0, "none"),
        ("", 0, "no token"),
        (GOOD, WEEK / 3, "third"),
        (GOOD, -1000, "third"),
        (GOOD.replace("BEGIN USER NKEY SEED", "BEGIN"), 0, "no key"),
        (credentials_of(ACCOUNT, WORKER._replace(queue="other"), NOW), 0, "other rights"),
        (credentials_of(ACCOUNT, WORKER._replace(role=Role.PRODUCER), NOW), 0, "other rights"),
        (credentials_of(Account.read(made_keys(NOW), "x"), WORKER, NOW), 0, "do not belong together"),
        (format_creds(parse_creds(GOOD, "x").token, KeyPair.made(Owner.USER).seed), 0, "do not belong"),
        (format_creds(parse_creds(GOOD, "x").token, "SUnothing"), 0, "do not belong"),
    ],
)
def test_what_is_no_longer_or_never_was_good_is_renewed(present: str | None, age: float, reason: str) -> None:
    assert reason in due(present, ACCOUNT, WORKER, NOW + age)


def test_a_token_that_was_changed_is_nobodys() -> None:
    issuer = KeyPair.made(Owner.ACCOUNT)
    token = sign({"sub": "x"}, issuer)
    head, body, signature = token.split(".")
    other = sign({"sub": "y"}, issuer).split(".")[1]
    assert (verified(token, issuer) or {})["sub"] == "x"
    for wrong in (f"{head}.{other}.{signature}", f"{head}.{body}.AAAA", f"{head}.{body}", "", "..."):
        assert verified(wrong, issuer) is None
    assert verified(token, KeyPair.made(Owner.ACCOUNT)) is None


def test_an_accounts_own_key_signs_without_naming_the_account() -> None:
    own = KeyPair.made(Owner.ACCOUNT)
    account = Account.read({"account.seed": f"{own.seed}\n"}, "keys")
    assert account.public == own.public
    assert "issuer_account" not in account.rights(None)
    assert ACCOUNT.rights(None)["issuer_account"] == ACCOUNT.public


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "there is no 'account.seed'"),
        ({"account.seed": "nonsense"}, "account.seed of keys cannot sign"),
        ({"account.seed": KeyPair.made(Owner.USER).seed}, "not the key of an account"),
        ({"account.seed": KeyPair.made(Owner.ACCOUNT).seed, "account": "UABC"}, "public key of an account"),
    ],
)
def test_keys_that_cannot_sign_are_refused_by_name(entries: dict[str, str], words: str) -> None:
    with pytest.raises(KeysInvalid, match=words) as error:
        Account.read(entries, "keys")
    assert "account.seed" in error.value.hint


def test_no_private_key_is_shown_by_accident() -> None:
    credentials = parse_creds(GOOD, "x")
    assert credentials.seed not in repr(credentials)
    assert ACCOUNT.signer.seed not in repr(ACCOUNT)
