"""What an installation needs, calculated from unit costs: pure functions."""

import math
from dataclasses import dataclass

DAY = 86_400
GB = 1e9


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """What one unit of work costs on the machine where it was measured.

    Attributes:
        judge_events, mine_events: that one worker handles a second.
        encoded_documents: that one process encodes a second.
        trained_pairs: that one trainer learns from a second.
        searches: that one server answers a second.
        event_bytes, judged_bytes, pair_bytes, document_bytes: of a record on Kafka, one replica.
        pair_disk_bytes, document_disk_bytes: in a trainer's local copies.
        index_disk_bytes: of a document in a collection of Milvus.
        open_trajectory_bytes: of an open trajectory in a miner's memory.
        memory_mb: of one process by role.
    """

    judge_events: float
    mine_events: float
    encoded_documents: float
    trained_pairs: float
    searches: float
    event_bytes: float
    judged_bytes: float
    pair_bytes: float
    document_bytes: float
    pair_disk_bytes: float
    document_disk_bytes: float
    index_disk_bytes: float
    open_trajectory_bytes: float
    memory_mb: dict[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """What an installation has to do.

    Attributes:
        trajectories: a day.
        events, pairs, searches: of one trajectory; ``searches`` through `retrail serve`.
        seconds: from a trajectory's first event to its last one.
        documents: in the index.
        peak: busiest second, as a multiple of the mean.
        use: share of a worker's capacity that the busiest second may take.
        event_days, pair_days: retention of events and of pairs.
        replicas: of each topic.
    """

    trajectories: int
    events: int = 21
    pairs: int = 4
    searches: int = 12
    seconds: int = 600
    documents: int = 1_000_000
    peak: float = 3.0
    use: float = 0.5
    event_days: int = 30
    pair_days: int = 365
    replicas: int = 3


@dataclass(frozen=True, slots=True)
class Need:
    """What the load needs; disk in bytes, over all replicas and processes.

    Attributes:
        peak_events: a second.
        partitions: of each event topic: twice what the workers need today, because it cannot be
            changed later, and at least 4.
        judges, miners, servers: processes.
        miner_mb: memory of one miner.
        kafka_disk: of all brokers together, after the whole retention.
        trainer_disk: of the local copies of one trainer.
        milvus_disk: of two collections, the live one and that of a candidate.
        build_hours: for one index worker to encode all documents with a new model; with n workers
            an nth of it.
        training_share: of the day that one trainer needs for all new pairs once.
    """

    peak_events: float
    partitions: int
    judges: int
    miners: int
    servers: int
    miner_mb: float
    kafka_disk: float
    trainer_disk: float
    milvus_disk: float
    build_hours: float
    training_share: float


def need(load: Load, costs: UnitCosts) -> Need:
    """What ``load`` needs at these costs."""
    trajectories = load.trajectories / DAY
    peak_events = trajectories * load.events * load.peak

    def workers(wanted: float, each: float) -> int:
        return max(1, math.ceil(wanted / (each * load.use)))

    judges = workers(peak_events, costs.judge_events)
    miners = workers(peak_events, costs.mine_events)
    events = load.trajectories * load.events * load.event_days
    pairs = load.trajectories * load.pairs * load.pair_days
    topics = (
        events * (costs.event_bytes + costs.judged_bytes)
        + pairs * costs.pair_bytes
        + load.documents * costs.document_bytes
    )
    open_bytes = trajectories * load.peak * load.seconds * costs.open_trajectory_bytes
    return Need(
        peak_events=peak_events,
        partitions=max(4, 2 * max(judges, miners)),
        judges=judges,
        miners=miners,
        servers=workers(trajectories * load.searches * load.peak, costs.searches),
        miner_mb=costs.memory_mb["mine"] + open_bytes / miners / 1e6,
        kafka_disk=load.replicas * topics,
        trainer_disk=pairs * costs.pair_disk_bytes + load.documents * costs.document_disk_bytes,
        milvus_disk=2 * load.documents * costs.index_disk_bytes,
        build_hours=load.documents / costs.encoded_documents / 3600,
        training_share=load.trajectories * load.pairs / costs.trained_pairs / DAY,
    )


def table(loads: list[Load], costs: UnitCosts) -> str:
    """The needs of the loads as a table in Markdown."""
    needs = [need(load, costs) for load in loads]
    rows = [
        ("events a second, at the peak", [f"{one.peak_events:,.1f}" for one in needs]),
        ("partitions", [f"{one.partitions}" for one in needs]),
        ("judges", [f"{one.judges}" for one in needs]),
        ("miners, memory of each", [f"{one.miners}, {one.miner_mb:,.0f} MB" for one in needs]),
        ("servers (`retrail serve`)", [f"{one.servers}" for one in needs]),
        ("Kafka's disk, all replicas", [size(one.kafka_disk) for one in needs]),
        ("trainer's disk", [size(one.trainer_disk) for one in needs]),
        ("Milvus' disk", [size(one.milvus_disk) for one in needs]),
        ("build by one index worker", [f"{one.build_hours:,.1f} h" for one in needs]),
        (
            "training on every pair, of a trainer's day",
            [f"{100 * one.training_share:,.1f}%" for one in needs],
        ),
    ]
    head = [f"{load.trajectories:,} a day" for load in loads]
    lines = [["", *head], ["---", *("---:" for _ in head)], *([name, *row] for name, row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def size(number: float) -> str:
    """Bytes in GB or TB."""
    return f"{number / GB:,.1f} GB" if number < 1000 * GB else f"{number / GB / 1000:,.1f} TB"
