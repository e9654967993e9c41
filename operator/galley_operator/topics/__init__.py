"""Topics: the events each of them declares are kept and copied, and its status."""
