"""Loads the fixtures all tests share."""

import signal

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

# What a shell runs in the background ignores SIGINT, and so does what that starts; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
