"""Loads the fixtures that make clusters."""

pytest_plugins = ("tests.support.api_server", "tests.support.cluster")
