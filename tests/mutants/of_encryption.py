"""Mistakes in what is encrypted, what it is bound to, and how long a key is used."""

from typing import Final

from tests.mutants.mutant import Mutant

_UNIT: Final = "tests/unit/galley/encryption/"
PAYLOADS: Final = f"{_UNIT}test_payloads.py"
DATA_KEYS: Final = f"{_UNIT}test_data_keys.py"
KEYS: Final = f"{_UNIT}test_keys.py"
RULES: Final = "tests/unit/galley/broker/test_encryption_rules.py"


def _of(module: str, name: str, old: str, new: str, breaks: str, *tests: str) -> Mutant:
    return Mutant(f"{module}: {name}", f"sdk/galley/{module}.py", old, new, breaks, tests)


MUTANTS: Final = (
    _of(
        "encryption/payloads",
        "a payload is bound to no place",
        "    return place.encode() + clear\n",
        "    return clear\n",
        "a result can be moved to another task",
        PAYLOADS,
    ),
    _of(
        "encryption/payloads",
        "what is in the clear is not authenticated",
        "    return place.encode() + clear\n",
        "    return place.encode()\n",
        "the handler of a task can be exchanged",
        PAYLOADS,
    ),
    _of(
        "encryption/payloads",
        "an outcome need not be the one that was encrypted",
        " or (payload.outcome is not record.outcome and not cancelled):",
        " or False:",
        "a failure becomes a success with no result",
        PAYLOADS,
    ),
    _of(
        "encryption/payloads",
        "plaintext is taken where it must not be",
        "            if not plaintext:\n",
        "            if False:\n",
        "one without a key can submit tasks",
        PAYLOADS,
    ),
    _of(
        "encryption/payloads",
        "a result in plaintext is believed",
        "and not record.sealed and _tells(record):",
        "and False:",
        "one without a key can write results",
        PAYLOADS,
    ),
    _of(
        "encryption/payloads",
        "a digest that was learned is written in the clear",
        '            return record_wire.encode(replace(record, digest=""))\n',
        "            return record_wire.encode(record)\n",
        "a guessable input can be found out by its hash",
        PAYLOADS,
    ),
    _of(
        "encryption/payloads",
        "the task in a dead letter stays in plaintext",
        "        plain = task if task != NO_TASK and not task_wire.decode(bytes(task)).sealed else NO_TASK\n",
        "        plain = NO_TASK\n",
        "the broker keeps the plaintext of a refused task",
        PAYLOADS,
    ),
    _of(
        "encryption/data_keys",
        "a removed key still decrypts",
        "            self._opened.clear()\n",
        "            pass\n",
        "a key that was removed is used until the process ends",
        DATA_KEYS,
    ),
    _of(
        "encryption/data_keys",
        "a new primary key is not used",
        "            and self._present_of == self._version\n",
        "",
        "a rotation takes five minutes more",
        DATA_KEYS,
    ),
    _of(
        "encryption/data_keys",
        "a data key that never fitted is kept",
        "        text = key.open(parts, bound, subject)\n",
        "        self._opened[place] = (key, self._clock() + KEPT_SECONDS)\n"
        "        text = key.open(parts, bound, subject)\n",
        "altered payloads drive out the keys of others",
        DATA_KEYS,
    ),
    _of(
        "encryption/data_keys",
        "each of many asks a service that is down",
        "        if failed is not None and self._clock() - self._failed_at < _CALM_SECONDS:\n",
        "        if False:\n",
        "all slots of a worker wait for the service one after the other",
        DATA_KEYS,
    ),
    _of(
        "encryption/keys",
        "files that cannot be used empty the keys",
        "            self._problem = str(error)\n            return\n",
        "            self._keys = self._keys._replace(ciphers={})\n            return\n",
        "a mistake in a Secret stops the queue",
        KEYS,
    ),
    _of(
        "broker/encryption_rules",
        "what was learned holds for good",
        "            self._settled_until[address.namespace, address.queue] = rule.asked_at + ASKED_AGAIN_SECONDS\n",
        "            self._settled_until[address.namespace, address.queue] = 1e18\n",
        "a producer goes on in plaintext after its queue was encrypted",
        RULES,
    ),
    _of(
        "broker/encryption_rules",
        "a refusal is not asked about again",
        "        if rule is None or now - rule.asked_at >= _CHECKED_SECONDS:\n",
        "        if rule is None:\n",
        "a producer with keys is refused though its queue was encrypted",
        RULES,
    ),
    _of(
        "broker/encryption_rules",
        "each task asks for itself",
        "await self._asking.get(queue, partial(self._ask, address, give_up, known))",
        "await self._ask(address, give_up, known)",
        "a thousand tasks at once ask a busy server a thousand times",
        RULES,
    ),
    _of(
        "broker/encryption_rules",
        "one task's patience is that of all",
        "                if asyncio.get_running_loop().time() >= give_up:\n                    raise\n\n    async def _ask",
        "                raise\n\n    async def _ask",
        "a task is given up because another one was",
        RULES,
    ),
)
