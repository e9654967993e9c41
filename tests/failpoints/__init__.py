"""Processes that fail at each named place, against a real nats-server."""
