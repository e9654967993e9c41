"""Loads the fixtures that make clusters."""

pytest_plugins = (
    "tests.support.bytecode",
    "tests.support.ended",
    "tests.support.api_server",
    "tests.support.cluster",
)
