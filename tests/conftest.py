"""Loads the fixtures all tests share."""

pytest_plugins = (
    "tests.support.bytecode",
    "tests.support.ended",
    "tests.support.servers",
    "tests.support.guarded_nats",
)
