"""Knowing that the streams are done with a set of trajectories, and what they made of them."""

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing

from confluent_kafka import Consumer, KafkaException, TopicPartition

from retrail_runtime import kafka
from schemas import pairs
from schemas.base import canonical
from schemas.errors import BrokerUnavailableError, RetrailError
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from schemas.topics import Topics

PATIENCE = 120.0
"""Seconds without any progress of judge or miner after which they are given up."""

INTERVAL = 0.2
ANSWER_SECONDS = 10.0

Offsets = Mapping[int, int]
"""Partition → offset."""


class NotMined(RetrailError):
    """Judge or miner stand still."""


def wait_until_mined(
    settings: Settings, events: int, *, on_wait: Callable[[int, int], None]
) -> None:
    """Return once all pairs of all events so far are on the topic; every trajectory has ended.

    1. The judge has committed past every event: their judged copies are acknowledged.
    2. Each partition of judged-events has grown since (by a tick, if by nothing else), so the ends
       that are read now lie behind all these copies, even where a broker tells the start of its
       last batch as the end.
    3. The miner has committed past these ends. It commits the oldest record that an open trajectory
       needs, so none is open before them, and only when all pairs so far are acknowledged.

    Args:
        events: published on trajectory-events since it was created.
        on_wait: called several times a second with the number of judged events and ``events``;
            what it raises ends the waiting.

    Raises:
        NotMined: nothing moves any more.
        BrokerUnavailableError: Kafka does not answer.
    """
    topics = Topics.of(settings)
    judge = kafka.consumer(settings, settings.group("judge", revised=True))
    miner = kafka.consumer(settings, settings.group("mine", revised=True))

    def watch(done: int) -> None:
        on_wait(min(done, events), events)

    with closing(judge), closing(miner):
        _await(
            "judge",
            lambda: committed(judge, topics.trajectory_events, settings.partitions),
            lambda found: sum(found.values()) >= events,
            lambda found: watch(sum(found.values())),
        )
        before = ends(miner, topics.judged_events)
        last = _await(
            "judge",
            lambda: ends(miner, topics.judged_events),
            lambda found: all(found[partition] > end for partition, end in before.items()),
            lambda _: watch(events),
        )
        _await(
            "mine",
            lambda: committed(miner, topics.judged_events, settings.partitions),
            lambda found: all(found[partition] >= end for partition, end in last.items()),
            lambda _: watch(events),
        )


def pairs_of(settings: Settings, trajectory_ids: Collection[str]) -> list[LabelledPair]:
    """The pairs of these trajectories, each id once, sorted by ``pair_id``.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
        InvalidRecordError: a record is no pair.
    """
    found: dict[str, LabelledPair] = {}
    for record in kafka.read_to_end(settings, Topics.of(settings).labelled_pairs):
        pair = pairs.decode(record.value)
        if pair.trajectory_id in trajectory_ids:
            found.setdefault(pair.pair_id, pair.content())
    return [found[pair_id] for pair_id in sorted(found)]


def digest(some: Iterable[LabelledPair]) -> str:
    """Names the ids and the content of pairs, whatever their order."""
    ordered = sorted(some, key=lambda pair: pair.pair_id)
    content = [pair.content().model_dump(mode="json") for pair in ordered]
    return hashlib.sha256(canonical(content)).hexdigest()[:32]


def committed(reader: Consumer, topic: str, partitions: int) -> Offsets:
    """What the reader's group has committed; 0 where it has not.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
    """
    wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
    try:
        found = reader.committed(wanted, timeout=ANSWER_SECONDS)
    except KafkaException as error:
        raise BrokerUnavailableError(f"Kafka does not tell committed offsets: {error}") from error
    return {place.partition: max(0, place.offset) for place in found}


def ends(reader: Consumer, topic: str) -> Offsets:
    """The end of each partition.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
    """
    return {partition: high for partition, (_, high) in kafka.offsets(reader, topic).items()}


def _await(
    who: str,
    look: Callable[[], Offsets],
    enough: Callable[[Offsets], bool],
    on_look: Callable[[Offsets], None],
) -> Offsets:
    """Look until it is enough, and give what was seen then."""
    seen: Offsets = {}
    moved_at = time.monotonic()
    while True:
        found = look()
        on_look(found)
        if enough(found):
            return found
        now = time.monotonic()
        if found != seen:
            seen, moved_at = found, now
        elif now - moved_at > PATIENCE:
            raise NotMined(
                f"The worker `{who}` has stood still for {PATIENCE:.0f} s at {dict(seen)}. Its log "
                "says why; with RETRAIL_JUDGE=llm the judge waits for its server."
            )
        time.sleep(INTERVAL)
