"""Mining files without a broker: the same judge and the same fold over events in the files' order.

Files do not record when events reached a log, so no time passes between them; after the last one
enough passes to close what never ended, as it would on a broker.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from retrail_runtime.files import read_lines
from schemas.choices import FileFormat
from schemas.errors import InputError, InvalidRecordError
from schemas.events import Event, parse
from schemas.pairs import LabelledPair
from schemas.settings import Settings
from streams.events import encode, read_published
from streams.importing.lrat import events_of_file
from streams.judge.judgement import Judge, judge_event, judge_named
from streams.mine.fold import Fold, Limits

_SUFFIX: dict[FileFormat, str] = {"lrat": ".json", "events": ".jsonl"}
_AT_ONCE = 256
"""Events whose reasonings are judged at the same time; the judge bounds its own requests."""


def files_of(paths: Iterable[Path], file_format: FileFormat) -> list[Path]:
    """The files that the paths name: a folder stands for its files of the format, sorted.

    Raises:
        InputError: a path does not exist, or there is nothing to read.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(path.glob(f"*{_SUFFIX[file_format]}"))
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not files:
        raise InputError(f"There are no *{_SUFFIX[file_format]} files in the given folders.")
    return files


def events_of(path: Path, file_format: FileFormat) -> Iterator[Event]:
    """The events of one file: an LRAT trajectory, or one event a line as on trajectory-events.

    Raises:
        InputError: naming the file, and the line that is no event.
    """
    if file_format == "lrat":
        yield from events_of_file(path)
        return
    for place, line in read_lines(path):
        try:
            yield parse(line).event
        except InvalidRecordError as error:
            raise InputError(f"{place}: {error}", path=path) from error


def mine_paths(
    paths: Iterable[Path],
    file_format: FileFormat,
    settings: Settings,
    *,
    on_file: Callable[[Path], None] = lambda path: None,
) -> Iterator[LabelledPair]:
    """Labelled pairs of the trajectories in files; ``sources`` is absent, there being no log.

    Args:
        paths: files, or folders of them.
        file_format: ``lrat`` or ``events``.
        settings: judge, profile, revision and limits.
        on_file: called when a file has been read.

    Raises:
        InputError: see :func:`files_of` and :func:`events_of`.
    """
    fold = Fold(revision=settings.revision, profile=settings.profile, limits=Limits.of(settings))
    files = files_of(paths, file_format)
    with asyncio.Runner() as runner:
        judge = judge_named(settings)
        try:
            offsets = itertools.count()
            for path in files:
                events = events_of(path, file_format)
                while chunk := list(itertools.islice(events, _AT_ONCE)):
                    for offset, value in runner.run(_judge_all(chunk, judge, offsets)):
                        yield from map(LabelledPair.content, fold.apply(offset, 0, value))
                on_file(path)
        finally:
            if judge is not None:
                runner.run(judge.aclose())
    yield from map(LabelledPair.content, fold.close_all())


async def _judge_all(
    events: list[Event], judge: Judge | None, offsets: Iterator[int]
) -> list[tuple[int, bytes]]:
    """Judged events as they would stand on the log, judged at once and in order."""
    judged = await asyncio.gather(
        *(
            judge_event(read_published(event.to_json())[0], judge, offset, 0)
            for event, offset in zip(events, offsets, strict=False)
        )
    )
    return [(event.source_offset, encode(event)) for event in judged]
