"""How often a judge is right on labelled reasonings: ``python -m benchmarks.judge [llm]``.

The texts are in ``tests/streams/reasonings``; ``llm`` takes its server from RETRAIL_JUDGE_….
"""

import asyncio
import sys
import timeit
from collections import Counter
from itertools import groupby

from benchmarks import train_judge
from benchmarks.labelled import Labelled, labelled
from schemas.events import Verdict
from schemas.settings import load
from streams.judge.judgement import Judge, judge_named
from streams.judge.local import verdict_of

HELD_OUT = ("held-out-2", "held-out-3", "held-out-4", "contrasts")
"""In no fit of the local judge."""

BY_STYLE = ("held-out-4", "contrasts")
LANGUAGES = "languages"

Counts = Counter[tuple[Verdict, Verdict]]
"""How often each (label, verdict) comes up."""


async def measure(judge: Judge, texts: list[Labelled]) -> Counts:
    """The verdicts on all texts."""
    verdicts = await asyncio.gather(*(judge.judge(text.text) for text in texts))
    return Counter(
        ("irrelevant" if text.irrelevant else "relevant", found)
        for text, found in zip(texts, verdicts, strict=True)
    )


def line(part: str, counts: Counts) -> str:
    """The counts in one line."""
    unknown = counts["relevant", "unknown"] + counts["irrelevant", "unknown"]
    return (
        f"{part:42} relevant {_share(counts, 'relevant')}  irrelevant "
        f"{_share(counts, 'irrelevant')}  unknown {unknown}/{counts.total()}"
    )


def _share(counts: Counts, label: Verdict) -> str:
    texts = sum(number for (wanted, _), number in counts.items() if wanted == label)
    right = counts[label, label]
    return f"{right:4}/{texts:<4} {right / max(1, texts):6.1%}"


def speed(texts: list[Labelled]) -> str:
    """Microseconds of the local judge for one text, best of five."""
    best = min(timeit.repeat(lambda: [verdict_of(t.text) for t in texts], number=1, repeat=5))
    characters = sum(len(text.text) for text in texts) / len(texts)
    return f"{best / len(texts) * 1e6:.0f} us a text of {characters:.0f} characters"


async def main(name: str) -> None:
    """Measure on the texts that the weights were fitted to, and on those held out."""
    judge = judge_named(load(judge=name))
    assert judge is not None, "judge none gives no verdicts"
    for part in (*train_judge.PARTS, *HELD_OUT):
        print(line(part, await measure(judge, labelled(part))))
    for part in (*BY_STYLE, LANGUAGES):
        texts = sorted(labelled(part), key=lambda text: text.source)
        for source, of_source in groupby(texts, lambda text: text.source):
            print(line(f"{part}: {source}", await measure(judge, list(of_source))))
    await judge.aclose()
    if name == "local":
        print(speed([text for text in labelled("voices") if len(text.text) >= 300]))
        print(speed(labelled("held-out-4")))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
