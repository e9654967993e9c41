"""Galley measured against a raw nats-py loop that does the same steps. Run it: `python -m benchmarks`."""
