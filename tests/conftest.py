"""Loads the fixtures all tests share."""

pytest_plugins = ("tests.support.servers", "tests.support.guarded_nats")
