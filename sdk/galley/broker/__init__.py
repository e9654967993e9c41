"""The only package that speaks to NATS and spells its subjects, streams and headers."""

from galley.broker.websocket import import_nats

import_nats()
