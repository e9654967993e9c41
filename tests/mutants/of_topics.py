"""Mistakes in topics and counts: which queue gets a copy of an event, how often, and what is counted."""

from typing import Final

from tests.mutants.mutant import Mutant

_SDK: Final = "sdk/galley/"
_WORKER: Final = "worker-image/galley_worker/"
FANOUT: Final = "tests/unit/galley_worker/test_fanout.py"
TOPIC: Final = "tests/unit/galley/test_topic.py"
COUNTS: Final = "tests/unit/galley/broker/test_counts.py"
LIFE: Final = "tests/unit/galley_worker/test_life.py"
BATCHES: Final = "tests/unit/galley_worker/runners/test_batches.py"


def _of(path: str, name: str, old: str, new: str, breaks: str, *tests: str, survives: str = "") -> Mutant:
    short = path.rpartition("/")[2]
    return Mutant(f"{short}: {name}", f"{path}.py", old, new, breaks, tests or (FANOUT,), survives)


MUTANTS: Final = (
    _of(
        f"{_WORKER}fanout",
        "copies are not flagged as chosen ids",
        "            await self._publisher.publish(address, copy, chosen_id=True)\n",
        "            await self._publisher.publish(address, copy)\n",
        "an event that is copied twice runs twice",
    ),
    _of(
        f"{_WORKER}fanout",
        "acknowledged before it is copied",
        "        copies: list[tuple[TaskAddress, Envelope]] = []\n",
        "        copies: list[tuple[TaskAddress, Envelope]] = []\n        self._ledger.acknowledge(delivery.reply)\n",
        "an event is lost with the worker that was copying it",
    ),
    _of(
        f"{_WORKER}fanout",
        "what cannot be looked at is dropped",
        "                await self._miss(topic, subscription, event, stored_at, error)\n",
        "                pass\n",
        "an event whose filter cannot tell is nowhere",
    ),
    _of(
        f"{_WORKER}fanout",
        "a queue of encrypted tasks takes events in the clear",
        "        if not self._plaintext:\n            raise MappingFailed",
        "        if False:\n            raise MappingFailed",
        "tasks in the clear run in a queue that refuses them",
    ),
    _of(
        f"{_WORKER}fanout",
        "a lane that is not served takes events",
        "        if subscription.lane not in self._layout.lanes:\n",
        "        if False:\n",
        "events wait in a lane that no worker serves",
    ),
    _of(
        f"{_WORKER}fanout",
        "a letter of a missed event is not stored",
        "        await self._ledger.bury(address, letter)\n",
        "",
        "an event that could not be looked at is nowhere",
    ),
    _of(
        f"{_SDK}topic",
        "two sources with one id are one event",
        '    words = f"{topic}\\0{subscription}\\0{event.source}\\0{event.id}"\n',
        '    words = f"{topic}\\0{subscription}\\0{event.id}"\n',
        "the event of one source keeps that of another from running",
        TOPIC,
    ),
    _of(
        f"{_SDK}topic",
        "two topics with one id are one event",
        '    words = f"{topic}\\0{subscription}\\0{event.source}\\0{event.id}"\n',
        '    words = f"{subscription}\\0{event.source}\\0{event.id}"\n',
        "the event of one topic keeps that of another from running",
        TOPIC,
    ),
    _of(
        f"{_SDK}topic",
        "parts of an id run together",
        '    words = f"{topic}\\0{subscription}\\0{event.source}\\0{event.id}"\n',
        '    words = f"{topic}{subscription}{event.source}{event.id}"\n',
        "two events of different sources have one id, and the second does not run",
        TOPIC,
    ),
    _of(
        f"{_SDK}topic",
        "events from before a subscription concern it",
        "    if subscription.since is not None and stored_at < subscription.since:\n        return False\n",
        "",
        "a new subscription runs for all that is kept",
        TOPIC,
    ),
    _of(
        f"{_SDK}topic",
        "hops are not handed on",
        '    return (*life, f"{HOPS_WORD}{event.hops}") if event.hops else life\n',
        "    return life\n",
        "a handler that publishes to its own topic does so without end",
    ),
    _of(
        f"{_SDK}topic",
        "filters are not looked at",
        "    return not subscription.filter or filters.parse",
        "    return True or filters.parse",
        "a queue gets events that it did not ask for",
    ),
    _of(
        f"{_SDK}broker/topics",
        "an event without an id of its message",
        ", topology.MESSAGE_ID: token}",
        "}",
        "an event whose answer was lost is stored twice",
    ),
    _of(
        f"{_SDK}broker/topics",
        "an id of a message that others can guess",
        "token = secrets.token_hex(12)",
        "token = event.id",
        "who sends it first suppresses the event",
        "tests/integration/credentials/test_attacks.py",
    ),
    _of(
        f"{_SDK}broker/topics",
        "no answer counts as a refusal",
        "            if not ack.unanswered and ack.code != NO_RESPONDERS:\n",
        "            if True:\n",
        "a publish ends with an error though the server is away for a second",
    ),
    _of(
        f"{_SDK}broker/counts",
        "an increment is sent again under another id",
        "            if sent is None:\n                if not (amount",
        "            if True:\n                if not (amount",
        "what was stored without an answer is counted twice",
        COUNTS,
    ),
    _of(
        f"{_SDK}broker/counts",
        "an increment whose id is forgotten is sent again",
        "            if sent is not None and self._clock() - sent.since > _GIVE_UP_SECONDS:\n",
        "            if False:\n",
        "what was stored two minutes ago is counted twice",
        COUNTS,
    ),
    _of(
        f"{_SDK}broker/counts",
        "an increment without an answer is given up",
        "        elif not ack.unanswered:\n",
        "        else:\n",
        "what was stored without an answer is counted twice",
        COUNTS,
    ),
    _of(
        f"{_SDK}broker/counts",
        "what came meanwhile waits",
        "        if repeats and not self._sent:\n",
        "        if False:\n",
        "the last counts of a worker that ends are lost",
        COUNTS,
    ),
    _of(
        f"{_SDK}broker/counts",
        "a count that cannot be read ends the reader",
        "            except (*UNREADABLE, ValueError) as error:\n",
        "            except KeyError as error:\n",
        "one bad message takes all metrics of a queue away",
        COUNTS,
    ),
    _of(
        f"{_SDK}broker/counts",
        "sums stand in the bucket beside theirs",
        "        self.counts[bisect_left(SECONDS, seconds)] += 1\n",
        "        self.counts[bisect_left(SECONDS, seconds) + 1] += 1\n",
        "quantiles are too high",
        COUNTS,
    ),
    _of(
        f"{_SDK}topic",
        "life events are events like others",
        "    life = (LIFE_WORD,) if event.type.startswith(LIFE_TYPE) else ()\n",
        "    life: tuple[str, ...] = ()\n",
        "a handler that is called for the end of tasks is called for its own, without end",
        LIFE,
    ),
    _of(
        f"{_WORKER}life",
        "tasks of life events have some, too",
        "            if LIFE_WORD in task.ancestors:\n",
        "            if LIFE_WORD in decode(delivery.body).labels:\n",
        "a handler that is called for the end of tasks is called for its own, without end",
        LIFE,
    ),
    _of(
        f"{_WORKER}life",
        "the id of a life event is new each time",
        'event_id=f"{address.id}.',
        'event_id=f"{self._now().timestamp()}.{address.id}.',
        "a worker that settles again what another had settled tells it twice",
        LIFE,
    ),
    _of(
        f"{_WORKER}life",
        "what exceptions say is told everywhere",
        'happened.message = failure.message if self._messages else ""',
        "happened.message = failure.message",
        "a queue that encrypts its payloads publishes parts of them",
        LIFE,
    ),
    _of(
        f"{_WORKER}life",
        "a topic that is not there fails the attempt",
        "        except GalleyError as error:\n",
        "        except EnvelopeInvalid as error:\n",
        "a topic that is full has every task run again",
        LIFE,
    ),
    _of(
        f"{_WORKER}runners/batches",
        "a task that is to be apart is not",
        "        if execution.work.apart:\n",
        "        if False:\n",
        "a task that kills its batch takes its neighbours along each time",
        BATCHES,
    ),
    _of(
        f"{_WORKER}runners/batches",
        "one cancel stops a whole batch",
        "        if carrier is not None and carrier.all_ended:\n",
        "        if carrier is not None:\n",
        "cancelling one task fails its neighbours",
        BATCHES,
    ),
    _of(
        f"{_WORKER}runners/batches",
        "the next batch waits behind slow ones",
        "        return self._running >= self._slots and not self._slow()\n",
        "        return self._running >= self._slots\n",
        "tasks wait for minutes at a worker while others are idle",
        BATCHES,
    ),
    _of(
        f"{_WORKER}runners/batches",
        "nothing is gathered ahead",
        "        return self._running >= self._slots and not self._slow()\n",
        "        return False\n",
        "a third of all tasks goes back to the broker and comes again",
        BATCHES,
    ),
)
