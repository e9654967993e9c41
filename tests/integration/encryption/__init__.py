"""Encrypted queues: real workers, a real nats-server, and who listens in between."""
