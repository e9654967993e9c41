"""When certificates and their authority are replaced, and that no client notices."""

from collections import deque
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from galley_operator.credentials.certificate import (
    Chain,
    Pair,
    Times,
    authorities_in,
    checked,
    expiry,
    hosts_of,
    issued,
    made_authority,
    replaced,
    usable,
)
from galley_operator.errors import CertificateInvalid

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOSTS = ("nats", "nats.shop.svc", "127.0.0.1")
DAY = timedelta(days=1)
TIMES = Times()


def made(now: datetime = NOW) -> Chain:
    return replaced(None, HOSTS, now, TIMES)


def trusts(trusted: tuple[str, ...], server: Pair, now: datetime) -> bool:
    """Whether a client with these authorities accepts a server's certificate."""
    certificate = x509.load_pem_x509_certificate(server.certificate.encode())
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        return False
    for text in trusted:
        authority = x509.load_pem_x509_certificate(text.encode())
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, InvalidSignature):
            continue
        return authority.not_valid_before_utc <= now < authority.not_valid_after_utc
    return False


def test_what_is_made_is_for_the_hosts_and_trusted_at_once() -> None:
    chain = made()
    assert set(hosts_of(chain.server)) == set(HOSTS)
    assert chain.trusted == (chain.signer.certificate,)
    assert trusts(chain.trusted, chain.server, NOW)
    assert expiry(chain.server) == NOW + 90 * DAY


def test_nothing_is_replaced_before_its_time() -> None:
    chain = made()
    assert replaced(chain, HOSTS, NOW + 59 * DAY, TIMES) == chain
    assert replaced(chain, tuple(reversed(HOSTS)), NOW, TIMES) == chain


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left() -> None:
    chain = made()
    renewed = replaced(chain, HOSTS, NOW + 61 * DAY, TIMES)
    assert renewed.server != chain.server
    assert (renewed.signer, renewed.trusted) == (chain.signer, chain.trusted)
    assert trusts(chain.trusted, renewed.server, NOW + 61 * DAY)


def test_a_short_life_is_divided_like_a_long_one() -> None:
    times = Times(certificate=timedelta(seconds=90))
    chain = replaced(None, HOSTS, NOW, times)
    assert replaced(chain, HOSTS, NOW + timedelta(seconds=59), times) == chain
    assert replaced(chain, HOSTS, NOW + timedelta(seconds=61), times) != chain


def test_other_hosts_need_another_certificate() -> None:
    chain = made()
    assert set(hosts_of(replaced(chain, (*HOSTS, "new"), NOW, TIMES).server)) == {*HOSTS, "new"}


def test_a_certificate_that_was_exchanged_for_a_foreign_one_is_made_again() -> None:
    chain = made()
    foreign = issued(made_authority(NOW, DAY), HOSTS, NOW, DAY)
    assert trusts(chain.trusted, replaced(chain._replace(server=foreign), HOSTS, NOW, TIMES).server, NOW)


def test_an_authority_is_first_trusted_then_signs_and_then_the_old_one_goes() -> None:
    chain = made()
    begun = replaced(chain, HOSTS, NOW + DAY, TIMES, new_authority=True)
    assert begun.successor is not None
    assert begun.trusted == (chain.signer.certificate, begun.successor.certificate)
    assert (begun.signer, begun.server) == (chain.signer, chain.server)
    assert replaced(begun, HOSTS, NOW + DAY, TIMES, new_authority=True) == begun, "one at a time"
    signs = replaced(begun, HOSTS, NOW + 8 * DAY, TIMES)
    assert (signs.signer, signs.successor) == (begun.successor, None)
    assert signs.trusted == begun.trusted
    assert trusts((begun.successor.certificate,), signs.server, NOW + 8 * DAY)
    ended = replaced(signs, HOSTS, NOW + 15 * DAY, TIMES)
    assert ended.trusted == (begun.successor.certificate,)
    assert ended.server == signs.server


def test_an_expired_authority_is_made_again() -> None:
    late = NOW + TIMES.authority + DAY
    chain = replaced(made(), HOSTS, late, TIMES)
    assert trusts(chain.trusted, chain.server, late)


def test_in_ten_years_no_client_that_fetches_within_the_overlap_is_ever_refused() -> None:
    """A client knows what was trusted up to a week ago, a server shows a certificate up to a day old."""
    times = Times(certificate=90 * DAY, authority=500 * DAY, overlap=7 * DAY)
    now, chain, signers = NOW, replaced(None, HOSTS, NOW, times), set[str]()
    known: deque[tuple[str, ...]] = deque([chain.trusted], maxlen=7)
    shown: deque[Pair] = deque([chain.server], maxlen=2)
    for _ in range(10 * 365):
        now += DAY
        chain = replaced(chain, HOSTS, now, times)
        known.append(chain.trusted)
        shown.append(chain.server)
        signers.add(chain.signer.certificate)
        for server in {*shown}:
            assert all(trusts(trusted, server, now) for trusted in {*known}), now
    assert len(signers) > 5


def test_a_certificate_of_others_is_checked_before_a_server_gets_it() -> None:
    chain = made()
    assert checked(chain.server, NOW, "theirs") == chain.server
    for pair, problem in (
        (Pair("", ""), "cannot be read"),
        (chain.server._replace(key=chain.signer.key), "is not the key of"),
        (issued(chain.signer, HOSTS, NOW - 3 * DAY, DAY), "expired on 2029-12-30"),
    ):
        with pytest.raises(CertificateInvalid, match=problem):
            checked(pair, NOW, "theirs")
    assert usable(chain.server)
    assert not usable(Pair("rubbish", chain.server.key))


def test_authorities_in_a_text_are_told_apart() -> None:
    first, second = (made_authority(NOW, DAY).certificate for _ in range(2))
    assert authorities_in(first + "\n" + second, "theirs") == (first, second)
    with pytest.raises(CertificateInvalid, match=r"no ca\.crt"):
        authorities_in("\n", "theirs")
    with pytest.raises(CertificateInvalid, match=r"ca\.crt cannot be read"):
        authorities_in("rubbish", "theirs")
