"""Galley beside other task queues for Python, each in an environment of its own."""
