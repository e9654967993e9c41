"""The only package that speaks to NATS and spells its subjects, streams and headers."""
