"""Mining files without a broker: the same judge and the same fold over events in the files' order.

Files do not record when events reached a log, so no time passes between them; after the last event
of a trajectory enough passes to close it, as it would on a broker.
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.events import Event, encode
from streams.importing.importer import Importer
from streams.importing.normalise import Part
from streams.judge.judgement import Judge, judge_named, judged, located, question
from streams.mine.fold import Fold, Limits

_AT_ONCE = 256
"""Events whose reasonings are judged at the same time; the judge bounds its own requests."""


def mine_paths(paths: Iterable[Path], format: str, settings: Settings) -> Iterator[LabelledPair]:
    """Labelled pairs of files of which all can be read; see :func:`mine`.

    Raises:
        InputError: naming what cannot be read.
    """
    return mine(Importer(format, strict=True).read(paths), settings)


def mine(parts: Iterable[Part], settings: Settings) -> Iterator[LabelledPair]:
    """Labelled pairs of trajectories; ``sources`` is absent, there being no log.

    Args:
        parts: whole trajectories, and events of others in the order of their log.
        settings: judge, profile, revision and limits.
    """
    log, offsets = _fold(settings), itertools.count()
    with asyncio.Runner() as runner:
        judge = judge_named(settings)
        try:
            for chunk in _chunks(parts):
                events = [event for part in chunk for event in part.events]
                values = iter(runner.run(_judge_all(events, judge, offsets)))
                for part in chunk:
                    fold = _fold(settings) if part.whole else log
                    for offset, value in itertools.islice(values, len(part.events)):
                        yield from map(LabelledPair.content, fold.apply(offset, 0, value))
                    if part.whole:
                        yield from map(LabelledPair.content, fold.close_all())
        finally:
            if judge is not None:
                runner.run(judge.aclose())
    yield from map(LabelledPair.content, log.close_all())


def _fold(settings: Settings) -> Fold:
    return Fold(revision=settings.revision, profile=settings.profile, limits=Limits.of(settings))


def _chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    chunk, size = list[Part](), 0
    for part in parts:
        chunk.append(part)
        size += len(part.events)
        if size >= _AT_ONCE:
            yield chunk
            chunk, size = [], 0
    yield chunk


async def _judge_all(
    events: list[Event], judge: Judge | None, offsets: Iterator[int]
) -> list[tuple[int, bytes]]:
    """Judged events as they would stand on the log; the texts are judged at once."""
    asked = {}
    if judge is not None:
        texts = {place: text for place, event in enumerate(events) if (text := question(event))}
        answers = await asyncio.gather(*map(judge.judge, texts.values()))
        asked = dict(zip(texts, answers, strict=True))
    numbered = enumerate(zip(events, offsets, strict=False))
    return [
        (offset, encode(judged(_offline(event, offset), judge, asked.get(place))))
        for place, (event, offset) in numbered
    ]


def _offline(event: Event, offset: int) -> Event:
    """With a source of which any offset may be missing: a file's events are dealt to folds."""
    return located(event, "offline", 0, offset, time=0, skipped_from=0)
