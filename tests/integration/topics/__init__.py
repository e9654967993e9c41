"""Tests of topics on a real nats-server."""
