"""Precision and recall of a judge on labelled reasonings: ``python -m benchmarks.judge [llm]``.

The texts lie in ``tests/streams/reasonings``; ``llm`` takes its server from RETRAIL_JUDGE_….
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path

from schemas.events import Verdict
from schemas.settings import load
from streams.judging import Judge, judge_named

FOLDER = Path(__file__).parent.parent / "tests" / "streams" / "reasonings"
LABELS: dict[str, Verdict] = {"-": "irrelevant", "+": "relevant"}


async def measure(judge: Judge, part: str) -> Counter[tuple[Verdict, Verdict]]:
    """How often each (label, verdict) comes up in one file."""
    lines = (FOLDER / f"{part}.txt").read_text().splitlines()
    verdicts = await asyncio.gather(*(judge.judge(line[2:]) for line in lines))
    return Counter((LABELS[line[0]], found) for line, found in zip(lines, verdicts, strict=True))


def report(part: str, counts: Counter[tuple[Verdict, Verdict]]) -> None:
    """One line a class."""
    for label in LABELS.values():
        right = counts[label, label]
        labelled = sum(n for (wanted, _), n in counts.items() if wanted == label)
        found = sum(n for (_, verdict), n in counts.items() if verdict == label)
        print(
            f"{part:8} {label:10} {labelled:4} texts  "
            f"precision {right / max(1, found):.3f}  recall {right / max(1, labelled):.3f}"
        )


async def main(name: str) -> None:
    """Measure on the texts that the rules were tuned on, and on those never looked at."""
    judge = judge_named(load(judge=name))
    for part in ("tuning", "unseen"):
        report(part, await measure(judge, part))
    await judge.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
