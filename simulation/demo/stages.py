"""Loads documents, waits until mining, indexing and the switch of a model are done, reads pairs."""

import hashlib
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TypeVar

from confluent_kafka import Consumer

from consumers import releases
from consumers.indexing.milvus import Milvus
from retrail_runtime import kafka
from schemas.base import canonical
from schemas.documents import Document, encode
from schemas.errors import NoIndexError, RetrailError
from schemas.pairs import LabelledPair, decode
from schemas.releases import CandidateDecision
from schemas.settings import Settings
from schemas.topics import Topics
from serving.retriever import Retriever
from simulation.fleet import Progress
from trainer.data.releases import Releases

MINING_PATIENCE = 120.0
"""Seconds without any progress of judge or miner after which the demo fails."""
INDEXING_PATIENCE = 600.0
"""Seconds without any progress of the index workers after which the demo fails."""

INTERVAL = 0.2
ANSWER_SECONDS = 10.0

T = TypeVar("T")
Offsets = Mapping[int, int]
"""Partition → offset."""


def load_documents(
    settings: Settings,
    documents: Sequence[Document],
    *,
    progress: Progress = lambda done, of: None,
) -> None:
    """Send documents to the topic from which every index is built.

    Raises:
        DeliveryError: Kafka did not take all of them.
    """
    done = itertools.count(1)
    kafka.send_all(
        kafka.producer(settings),
        Topics.of(settings).documents,
        map(encode, documents),
        on_delivery=lambda _: progress(next(done), len(documents)),
    )


def wait_until_mined(
    settings: Settings, events: int, *, on_wait: Callable[[int, int], None]
) -> None:
    """Return once the pairs of all events so far are on the topic. All trajectories have ended.

    1. The judge has committed past every event: their judged copies are acknowledged, so they lie
       before the ends of judged-events that are read now.
    2. The miner has committed past these ends. It commits the oldest record that an open trajectory
       needs, so none is open before them, and only when all pairs so far are acknowledged.

    Args:
        events: published on trajectory-events since it was created.
        on_wait: called several times a second with the number of judged events and ``events``;
            an exception from it ends the wait.

    Raises:
        RetrailError: judge or miner make no progress.
        BrokerUnavailableError: Kafka does not answer.
    """
    topics = Topics.of(settings)
    judge = kafka.consumer(settings, settings.group("judge", revised=True))
    miner = kafka.consumer(settings, settings.group("mine", revised=True))

    def stalled(worker: str) -> Callable[[Offsets], str]:
        return lambda found: (
            f"The worker `{worker}` made no progress for {MINING_PATIENCE:.0f} s at {dict(found)}. "
            "See its log; with RETRAIL_JUDGE=llm the judge waits for its server."
        )

    def judged() -> Offsets:
        found = committed(judge, topics.trajectory_events, settings.partitions)
        on_wait(min(sum(found.values()), events), events)
        return found

    def mined() -> Offsets:
        on_wait(events, events)
        return committed(miner, topics.judged_events, settings.partitions)

    with closing(judge), closing(miner):
        _await(
            judged,
            lambda found: sum(found.values()) >= events,
            stalled("judge"),
            MINING_PATIENCE,
        )
        marks = kafka.offsets(miner, topics.judged_events)
        _await(
            mined,
            lambda found: all(found[partition] >= end for partition, (_, end) in marks.items()),
            stalled("mine"),
            MINING_PATIENCE,
        )


def pairs_of(settings: Settings, trajectory_ids: Collection[str]) -> list[LabelledPair]:
    """The pairs of these trajectories, each id once, sorted by ``pair_id``.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
    """
    found: dict[str, LabelledPair] = {}
    for record in kafka.read_to_end(settings, Topics.of(settings).labelled_pairs):
        pair = decode(record.value)
        if pair.trajectory_id in trajectory_ids:
            found.setdefault(pair.pair_id, pair.content())
    return [found[pair_id] for pair_id in sorted(found)]


def digest(pairs: Iterable[LabelledPair]) -> str:
    """A digest of the ids and the content of pairs, in any order."""
    ordered = sorted(pairs, key=lambda pair: pair.pair_id)
    content = [pair.content().model_dump(mode="json") for pair in ordered]
    return hashlib.sha256(canonical(content)).hexdigest()[:32]


def committed(reader: Consumer, topic: str, partitions: int) -> Offsets:
    """The committed offsets of the reader's group; 0 if there is none.

    Raises:
        BrokerUnavailableError: Kafka does not answer.
    """
    known = kafka.committed(reader, topic, range(partitions), timeout=ANSWER_SECONDS)
    return dict.fromkeys(range(partitions), 0) | known


def wait_until_indexed(
    settings: Settings, documents: int, *, on_wait: Callable[[int], None]
) -> None:
    """Return once the live index holds this number of documents.

    Args:
        on_wait: called several times a second with how many it holds; what it raises ends the
            waiting.

    Raises:
        RetrailError: nothing was added for ten minutes.
        RetrailError: Milvus failed.
    """
    milvus = Milvus(settings)

    def look() -> tuple[int, bool]:
        """Number of documents in all builds, and whether the live one is complete."""
        served = milvus.aliased()
        counts = {build.collection: milvus.count(build) for build in milvus.builds()}
        held = sum(counts.values())
        on_wait(min(held, documents))
        return held, served in counts and counts[served] == documents

    _await(
        look,
        lambda found: found[1],
        lambda found: (
            f"The index holds {found[0]:,} of {documents:,} documents and has not grown for "
            f"{INDEXING_PATIENCE:.0f} s. See the log of the index worker."
        ),
        INDEXING_PATIENCE,
    )


def wait_until_decided(
    settings: Settings, version: int, *, on_wait: Callable[[], None]
) -> CandidateDecision:
    """The index worker's decision on a candidate, once it is on the log.

    Args:
        on_wait: called several times a second; an exception from it ends the wait.

    Raises:
        RetrailError: there is none within ten minutes.
        BrokerUnavailableError: Kafka does not answer.
    """
    known = Releases()

    def look() -> CandidateDecision | None:
        nonlocal known
        on_wait()
        known = releases.read(settings, known)
        return known.decisions.get(version)

    found = _await(
        look,
        lambda found: found is not None,
        lambda _: (
            f"The index worker has not decided on release {version} in {INDEXING_PATIENCE:.0f} s. "
            "See its log."
        ),
        INDEXING_PATIENCE,
    )
    assert found is not None
    return found


def wait_until_live(retriever: Retriever, version: int, *, on_wait: Callable[[], None]) -> None:
    """Return once a version answers searches.

    Args:
        on_wait: called several times a second; an exception from it ends the wait.

    Raises:
        RetrailError: it does not within ten minutes.
        RetrailError: the retriever fails.
    """

    def look() -> int:
        on_wait()
        try:
            return retriever.version()
        except NoIndexError:
            return 0

    _await(
        look,
        lambda found: found == version,
        lambda found: (
            f"Version {version} is not live {INDEXING_PATIENCE:.0f} s after its release; "
            f"version {found} is. See the log of the index worker."
        ),
        INDEXING_PATIENCE,
    )


def _await(
    look: Callable[[], T],
    enough: Callable[[T], bool],
    stalled: Callable[[T], str],
    patience: float,
) -> T:
    """Repeat ``look`` until its result is enough; returns it.

    Raises:
        RetrailError: the result has not changed for ``patience`` seconds.
    """
    found, moved_at = look(), time.monotonic()
    while not enough(found):
        time.sleep(INTERVAL)
        before, found = found, look()
        if found != before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > patience:
            raise RetrailError(stalled(found))
    return found
