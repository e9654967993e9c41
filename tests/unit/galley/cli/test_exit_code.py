import pytest

from galley.broker.errors import BrokerFull, BrokerRefused, BrokerSilent, BrokerTooOld, BrokerUnreachable
from galley.cli.errors import Misuse, NoQueues, NoServer, NoSuchTask, QueueNotServed
from galley.cli.exit_code import exit_code_of
from galley.errors import (
    GalleyError,
    InputInvalid,
    ManifestInvalid,
    QueueFull,
    QueueNotFound,
    ResultTimeout,
    TaskCancelled,
    TaskFailed,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskFailed("id", "AttemptsExhausted", "it broke"), 1),
        (TaskCancelled("id"), 1),
        (NoSuchTask("default", "id"), 1),
        (NoQueues("default"), 1),
        (BrokerRefused("create", 1, "no"), 1),
        (Misuse("problem", "hint"), 2),
        (InputInvalid("handler", "problem", "hint"), 2),
        (ManifestInvalid("a.yaml", 1, "", "problem"), 2),
        (QueueNotFound("default", "images"), 3),
        (QueueFull("images", "backlog"), 3),
        (QueueNotServed("a.yaml", "images"), 3),
        (BrokerUnreachable("nats://x", "refused"), 4),
        (BrokerSilent("nats://x", "store it", 30.0), 4),
        (BrokerFull("store it", 10023, "insufficient resources"), 1),
        (BrokerTooOld("nats://x", "2.9.0", "2.12.0"), 4),
        (NoServer("no server is named"), 4),
        (ResultTimeout("id", 3.0), 124),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, GalleyError) else str(value),
)
def test_a_script_learns_by_number_what_went_wrong(error: GalleyError, code: int) -> None:
    assert exit_code_of(error) == code
