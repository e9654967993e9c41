"""How many workers a queue should have: read the signals, decide, write to the fleet."""
