"""The HTTP API: its operations, what they take and what they answer."""
