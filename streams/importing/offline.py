"""Mining without a broker: the same judge and fold as the workers', on events in the files' order.

Files do not record when events reached a log, so no time passes between them; after the last event
of a trajectory enough passes to close it, as it would on a broker.
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator

from schemas.events import Verdict
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.importing.normalise import Part
from streams.judge.judgement import Judge, judge_named, judged, located, question
from streams.mine.fold import Fold
from streams.mine.mining import Pair

_AT_ONCE = 256
"""Events whose reasonings are judged concurrently; the judge bounds its own requests."""
PATIENCE = 60.0
"""Seconds that the judging server may be away; a worker waits for it without limit."""


def mine(parts: Iterable[Part], settings: Settings) -> Iterator[LabelledPair]:
    """Labelled pairs of trajectories; ``sources`` is absent, because there is no log.

    Args:
        parts: whole trajectories, and events of others in the order of their log.
        settings: judge, profile, revision and limits.
    """
    log, offsets = Fold.of(settings), itertools.count()
    with asyncio.Runner() as runner:
        judge = judge_named(settings, PATIENCE)
        try:
            for chunk in _chunks(parts):
                verdicts = iter(runner.run(_verdicts(chunk, judge)) if judge is not None else ())
                for part in chunk:
                    fold = Fold.of(settings) if part.whole else log
                    for event in part.events:
                        offset = next(offsets)
                        verdict = next(verdicts) if judge is not None else None
                        # A fold gets some of the events only, so any offset may be missing.
                        event = located(event, "offline", 0, offset, time=0, skipped_from=0)
                        event = judged(event, judge, verdict)
                        yield from map(Pair.content, fold.apply_event(offset, 0, event))
                    if part.whole:
                        yield from map(Pair.content, fold.close_all())
        finally:
            if judge is not None:
                runner.run(judge.aclose())
    yield from map(Pair.content, log.close_all())


def _chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    chunk, size = list[Part](), 0
    for part in parts:
        chunk.append(part)
        size += len(part.events)
        if size >= _AT_ONCE:
            yield chunk
            chunk, size = [], 0
    yield chunk


async def _verdicts(chunk: list[Part], judge: Judge) -> list[Verdict | None]:
    """The judge's verdict on each event; ``None`` where it is not asked."""
    texts = [question(event) for part in chunk for event in part.events]
    answers = iter(await asyncio.gather(*[judge.judge(text) for text in texts if text]))
    return [next(answers) if text else None for text in texts]
