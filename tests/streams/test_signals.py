"""Each quality signal (docs/metrics.md) changes with what it measures."""

import asyncio
import time

import pytest
from prometheus_client import REGISTRY

from retrail_runtime.retry import Deadline
from schemas.events import Agent, count_tokens
from schemas.judged import Tick
from schemas.settings import Settings
from schemas.topics import Topics
from streams.judge.local import LocalJudge
from streams.judge.worker import JudgeTask
from streams.loop.worker import Worker
from streams.mine.worker import MineTask, show
from tests.streams.fakes import FakeRecord, Source, assignment
from tests.streams.judged_log import browse, end, judged_record, numbered, reasoning, search
from tests.streams.trajectories import trajectory


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def moved(name, **labels):
    """Reads how far a sample has moved from where it is now."""
    before = value(name, **labels)
    return lambda: value(name, **labels) - before


def judge(records):
    """Let a judge handle records of one partition."""

    async def scenario():
        task = JudgeTask(assignment(), Topics.of(Settings()), LocalJudge(), 1000)
        task.process(records, len(records))
        await task.finish(Deadline(5))

    asyncio.run(scenario())


def mine(values, partition=0, **settings):
    """Let a miner handle judged events of one partition; how many trajectories stay open."""

    async def scenario():
        installation = Settings(**settings)
        task = MineTask(assignment(partition), Topics.of(installation), installation)
        records = [FakeRecord(offset, one, None, 10**12) for offset, one in enumerate(values)]
        task.process(records, len(records))
        waiting = value("retrail_mine_open_trajectories", partition=str(partition))
        await task.finish(Deadline(5))
        return waiting

    return asyncio.run(scenario())


def values_of(*steps, trajectory_id="t", first_source=0):
    """Judged events of one trajectory; the first is at log time 0, as all others."""
    return [
        judged_record(0, event, source=first_source + place, time=0, skipped_from=0).value
        for place, event in enumerate(numbered(trajectory_id, steps))
    ]


def test_browses_per_search_and_verdicts_and_length_per_agent_model():
    events = trajectory("signals")
    thoughts = [event for event in events if event.type == "reasoning"]
    models = ("signal-7b", "signal-70b")
    records = [
        FakeRecord(
            offset,
            event.model_copy(
                update={"agent": Agent(name="scout", model=models[offset % 2])}
            ).to_json(),
            event.trajectory_id.encode(),
        )
        for offset, event in enumerate(events)
    ]
    searches = moved("retrail_judge_events_total", type="search", result="accepted")
    browses = moved("retrail_judge_events_total", type="browse", result="accepted")
    verdicts = {
        verdict: moved("retrail_judge_verdicts_total", verdict=verdict, judge="local")
        for verdict in ("relevant", "irrelevant", "unknown")
    }
    numbers = [moved("retrail_judge_reasoning_tokens_count", agent_model=model) for model in models]
    lengths = [moved("retrail_judge_reasoning_tokens_sum", agent_model=model) for model in models]
    asked = moved("retrail_judge_duration_seconds_count", judge="local")
    judge(records)
    assert searches() == 3
    assert browses() == len(thoughts) == sum(number() for number in numbers)
    assert all(number() > 0 for number in numbers)
    assert sum(one() for one in lengths) == sum(count_tokens(event.text) for event in thoughts)
    assert sum(one() for one in verdicts.values()) == len(thoughts)
    assert verdicts["relevant"]() > 0
    assert verdicts["irrelevant"]() > 0
    assert asked() == sum(bool(event.text) for event in thoughts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "empty"), (" \n", "empty"), ("Die Seite nennt den Architekten nicht.", "language")],
)
def test_unknown_verdicts_by_reason(text, reason):
    thought = next(event for event in trajectory("unknown") if event.type == "reasoning")
    changed = thought.model_copy(update={"text": text, "verdict": None})
    verdicts = moved("retrail_judge_verdicts_total", verdict="unknown", judge="local")
    reasons = {r: moved("retrail_judge_unknown_total", reason=r) for r in ("empty", "language")}
    judge([FakeRecord(0, changed.to_json(), thought.trajectory_id.encode())])
    assert verdicts() == 1
    assert {r for r, counted in reasons.items() if counted() == 1} == {reason}
    assert sum(counted() for counted in reasons.values()) == 1


@pytest.mark.parametrize(
    ("reason", "key", "content"),
    [
        ("malformed_json", b"t", b"{"),
        ("unknown_type", b"t", b'{"type":"dance"}'),
        ("missing_field", b"t", b'{"type":"search"}'),
        ("wrong_key", b"other", trajectory("t")[0].to_json()),
        ("invalid_field", b"t", trajectory("t")[0].to_json().replace(b'"seq":0', b'"seq":-1')),
        (
            "unsupported_version",
            b"t",
            trajectory("t")[0].to_json().replace(b'"schema_version":"1.', b'"schema_version":"2.'),
        ),
    ],
)
def test_dead_letters_by_reason(reason, key, content):
    letters = moved("retrail_judge_dead_letters_total", reason=reason)
    events = moved("retrail_judge_events_total", type="invalid", result="dead_lettered")
    judge([FakeRecord(0, content, key)])
    assert (letters(), events()) == (1, 1)


def test_rejections_ranks_and_negatives():
    read = {
        "relevant": moved("retrail_mine_browses_total", result="relevant"),
        "irrelevant": moved("retrail_mine_browses_total", result="irrelevant"),
        "unsearched": moved("retrail_mine_browses_total", result="unsearched"),
        "pairs": moved("retrail_mine_pairs_total", verdict="relevant"),
        "negatives": moved("retrail_mine_pair_negatives_sum", verdict="relevant"),
        "rank of relevant": moved("retrail_mine_browsed_rank_sum", verdict="relevant"),
        "first of irrelevant": moved(
            "retrail_mine_browsed_rank_bucket", verdict="irrelevant", le="1.0"
        ),
        "ended": moved("retrail_mine_trajectories_closed_total", reason="end"),
    }
    steps = [
        search("q", "a", "b", "c"),
        browse("a"),
        reasoning("a", "irrelevant"),
        browse("c"),
        reasoning("c", "relevant"),
        browse("elsewhere"),
        reasoning("elsewhere", "relevant"),
        end("correct"),
    ]
    mine(values_of(*steps))
    assert {name: get() for name, get in read.items()} == {
        "relevant": 1,
        "irrelevant": 1,
        "unsearched": 1,
        "pairs": 1,
        "negatives": 2,
        "rank of relevant": 3,
        "first of irrelevant": 1,
        "ended": 1,
    }


def test_repeats_gaps_late_events_and_closes_without_end():
    read = {
        name: moved("retrail_mine_events_total", result=name)
        for name in ("accepted", "held", "repeated", "rejudged", "late", "undecodable")
    }
    gaps = moved("retrail_mine_missing_events_total")
    idle = moved("retrail_mine_trajectories_closed_total", reason="idle")
    first, second, _lost, fourth, fifth = values_of(*[{"type": "other", "name": "x"}] * 5)
    [again] = values_of({"type": "other", "name": "x"}, first_source=6)
    [stray] = [
        judged_record(0, event, source=7, time=0, skipped_from=0).value
        for event in numbered("stray", [{"type": "other", "name": "x"}] * 2)[1:]
    ]
    log = [first, second, second, fourth, fifth, again, stray, b"?", Tick(as_of=10**10).to_json()]
    waiting = mine([*log[:-1]], partition=7)
    assert waiting == 1
    assert gaps() == idle() == 0
    before = {name: get() for name, get in read.items()}
    assert before == {
        "accepted": 2,
        "held": 2,
        "repeated": 1,
        "rejudged": 1,
        "late": 1,
        "undecodable": 1,
    }
    assert mine(log, partition=7) == 0
    assert gaps() == 1
    assert idle() == 1


def test_lag_in_events_and_seconds(monkeypatch):
    monkeypatch.setattr("streams.loop.worker.WATCH_SECONDS", 0.01)
    app = Source(end=10)
    settings = Settings()
    place = {"topic": "lagging", "partition": "3"}

    def make_task(assigned):
        return MineTask(assigned, Topics.of(settings), settings)

    async def scenario():
        worker = Worker("lagging", make_task, 8)
        worker.app = app
        await worker.assigned(frozenset([3]))
        ago = int((time.time() - 50) * 1000)
        await worker.deliver(3, [FakeRecord(offset, b"?", None, ago) for offset in range(4)])
        watching = asyncio.create_task(worker.keep_watching())
        looks = len(app.answered) + 2
        async with asyncio.timeout(10):
            while len(app.answered) < looks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        watching.cancel()
        seen = (
            value("retrail_consumer_lag_records", **place),
            value("retrail_consumer_lag_seconds", **place),
        )
        await worker.revoked()
        return seen

    events, seconds = asyncio.run(scenario())
    assert events == 6
    assert 50 <= seconds < 65
    assert value("retrail_consumer_lag_records", **place) == 0


def test_what_a_fold_counts_reaches_the_metrics_once():
    counts = {
        ("events", "late"): 3,
        ("browses", "unsearched"): 2,
        ("closed", "idle"): 1,
        ("gaps", "idle"): 4,
        ("gaps", "end"): 1,
        ("rank", "irrelevant", "7"): 2,
        ("rank", "irrelevant", "1"): 1,
    }
    read = {
        "late": moved("retrail_mine_events_total", result="late"),
        "unsearched": moved("retrail_mine_browses_total", result="unsearched"),
        "idle": moved("retrail_mine_trajectories_closed_total", reason="idle"),
        "gaps": moved("retrail_mine_missing_events_total"),
        "ranks": moved("retrail_mine_browsed_rank_count", verdict="irrelevant"),
        "sum": moved("retrail_mine_browsed_rank_sum", verdict="irrelevant"),
        "first": moved("retrail_mine_browsed_rank_bucket", verdict="irrelevant", le="1.0"),
    }
    show(counts)
    assert {name: get() for name, get in read.items()} == {
        "late": 3,
        "unsearched": 2,
        "idle": 1,
        "gaps": 5,
        "ranks": 3,
        "sum": 15,
        "first": 1,
    }


def test_a_count_that_nothing_shows_is_an_error():
    with pytest.raises(KeyError, match="weather"):
        show({("weather", "fair"): 1})
