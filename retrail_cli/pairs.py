"""``retrail pairs``."""

import sys
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from schemas.pairs import LabelledPair
    from schemas.settings import Settings

NEWEST = 20


def pairs(
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One pair a line as JSON, on standard output.")
    ] = False,
    repeats: Annotated[
        bool,
        typer.Option(help="Also later records with a pair_id that was read before."),
    ] = False,
) -> None:
    """Show the pairs that were mined so far.

    Reads what is on labelled-pairs now, and ends.

    \b
    Examples:
      retrail pairs
      retrail pairs --jsonl > pairs.jsonl
    """
    from schemas.settings import load
    from schemas.topics import Topics

    settings = load()
    topic = Topics.of(settings).labelled_pairs
    found = _read(settings, repeats)
    if jsonl:
        for value, _ in found:
            sys.stdout.buffer.write(value + b"\n")
        sys.stdout.buffer.flush()
        return
    verdicts: Counter[str] = Counter()
    newest: deque[LabelledPair] = deque(maxlen=NEWEST)
    for _, pair in found:
        verdicts[pair.verdict] += 1
        newest.append(pair)
    _show(newest)
    typer.echo(
        f"{verdicts.total():,} pairs on {topic}: {verdicts['relevant']:,} relevant, "
        f"{verdicts['irrelevant']:,} irrelevant."
    )


def _read(settings: "Settings", repeats: bool) -> Iterator[tuple[bytes, "LabelledPair"]]:
    from retrail_runtime.kafka import read_to_end, require_broker
    from schemas import pairs
    from schemas.errors import InvalidRecordError
    from schemas.topics import Topics

    topic = Topics.of(settings).labelled_pairs
    require_broker(settings, [topic])
    seen: set[str] = set()
    for record in read_to_end(settings, topic):
        try:
            pair = pairs.decode(record.value)
        except InvalidRecordError as error:
            place = f"{topic} {record.partition}:{record.offset}"
            typer.echo(f"{place} is not a pair and was skipped: {error}", err=True)
            continue
        if repeats or pair.pair_id not in seen:
            seen.add(pair.pair_id)
            yield record.value or b"", pair


def _show(newest: "deque[LabelledPair]") -> None:
    if not newest:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("query", "document", "verdict", "rank", "negatives", "tokens", "agent")
    for pair in newest:
        table.add_row(
            pair.query,
            pair.positive,
            pair.verdict,
            str(pair.rank),
            f"{len(pair.negatives)} ({pair.rejected} rejected)",
            "" if pair.reasoning_tokens is None else str(pair.reasoning_tokens),
            pair.agent.model,
        )
    Console().print(table)
