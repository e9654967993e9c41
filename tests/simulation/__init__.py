"""The worker's logic over the server in memory, under faults at random: `make simulate SEEDS=0-999`."""
