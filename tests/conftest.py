"""Loads the fixtures all tests share."""

from hypothesis import HealthCheck, settings

pytest_plugins = (
    "tests.support.bytecode",
    "tests.support.heap",
    "tests.support.ended",
    "tests.support.servers",
    "tests.support.guarded_nats",
)

# A busy machine may take its time for an example.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
