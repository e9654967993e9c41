"""How many requests of one sender are let through."""

from galley_gateway.errors import RateExceeded
from galley_gateway.limits import Rates


class Sender:
    def __init__(self, rate: float) -> None:
        self.now = 0.0
        self._rates = Rates(rate, lambda: self.now)

    def accepted(self, gap: float, times: int) -> int:
        """Send requests one after the other, and return how many were let through."""
        found = 0
        for _ in range(times):
            try:
                self._rates.take("one")
            except RateExceeded:
                pass
            else:
                found += 1
            self.now += gap
        return found


def test_one_who_sends_too_much_has_as_many_accepted_as_one_who_does_not() -> None:
    sender = Sender(50)
    assert sender.accepted(0.0, 200) == 100
    # Of 60 a second, 50 are accepted.
    assert 499 <= sender.accepted(1 / 60, 600) <= 501


def test_a_rate_of_less_than_one_request_a_second_lets_some_through() -> None:
    assert Sender(0.1).accepted(1.0, 40) == 4
