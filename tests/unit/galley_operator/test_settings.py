import pytest

from galley_operator.errors import OperatorSettingsInvalid
from galley_operator.quota import Quotas
from galley_operator.settings import read_settings


def test_nothing_has_to_be_said() -> None:
    settings = read_settings({})
    assert settings.scopes == (None,)
    assert (settings.lease_seconds, settings.renew_seconds, settings.retry_seconds) == (15, 10, 2)
    assert settings.orphan_seconds == 24 * 3600


def test_namespaces_are_a_list_without_repeats() -> None:
    settings = read_settings({"GALLEY_OPERATOR_NAMESPACES": "a, b,,a"})
    assert settings.scopes == ("a", "b")


def test_an_empty_variable_is_one_that_was_not_set() -> None:
    settings = read_settings({"GALLEY_OPERATOR_TASK_TTL_SECONDS": "", "GALLEY_OPERATOR_POD_NAME": ""})
    assert settings.task_ttl_seconds is None
    assert settings.pod_name


def test_what_is_not_known_is_passed_over() -> None:
    assert read_settings({"GALLEY_OPERATOR_OF_TOMORROW": "x"}) is not None


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"GALLEY_OPERATOR_HEALTH_PORT": "http"}, "GALLEY_OPERATOR_HEALTH_PORT"),
        ({"GALLEY_OPERATOR_INSTALL": "a.b"}, "GALLEY_OPERATOR_INSTALL"),
        ({"GALLEY_OPERATOR_RENEW_SECONDS": "20"}, "must grow in this order"),
    ],
)
def test_a_wrong_setting_is_named(variables: dict[str, str], words: str) -> None:
    with pytest.raises(OperatorSettingsInvalid, match=words):
        read_settings(variables)


@pytest.mark.parametrize("amount", ["8 apples", "8Xi", "", "1e999999999"])
def test_a_quota_that_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="no amount of bytes"):
        Quotas.model_validate({"queueBytes": amount})
