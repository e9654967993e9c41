import pickle

import pytest

from galley_local.errors import (
    LocalError,
    ServerDidNotStart,
    ServerFolderInUse,
    ServerNotInstalled,
    ServerPortInUse,
)


@pytest.mark.parametrize(
    "error",
    [
        ServerNotInstalled(),
        ServerFolderInUse(".galley", "nats-server, process 7"),
        ServerPortInUse(4222),
        ServerDidNotStart("ended with exit code 1", ".galley/nats-server.log", "[FTL] no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling_with_message_hint_and_reason(error: LocalError) -> None:
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.hint, vars(twin)) == (str(error), error.hint, vars(error))
    assert error.reason == type(error).__name__
    assert error.hint
