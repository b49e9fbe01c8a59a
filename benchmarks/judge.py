"""Precision and recall of a judge on labelled reasonings: ``python -m benchmarks.judge [llm]``.

The texts lie in ``tests/streams/reasonings``; ``llm`` takes its server from RETRAIL_JUDGE_….
"""

import asyncio
import sys
import timeit
from collections import Counter

from benchmarks import train_judge
from benchmarks.labelled import Labelled, labelled
from schemas.events import Verdict
from schemas.settings import load
from streams.judge.judgement import Judge, judge_named
from streams.judge.local import verdict_of

PARTS = (*train_judge.PARTS, "held-out-2", "held-out-3")


async def measure(judge: Judge, texts: list[Labelled]) -> Counter[tuple[Verdict, Verdict]]:
    """How often each (label, verdict) comes up."""
    verdicts = await asyncio.gather(*(judge.judge(text.text) for text in texts))
    return Counter(
        ("irrelevant" if text.irrelevant else "relevant", found)
        for text, found in zip(texts, verdicts, strict=True)
    )


def report(part: str, counts: Counter[tuple[Verdict, Verdict]]) -> None:
    """One line a class."""
    for label in ("irrelevant", "relevant"):
        right = counts[label, label]
        labelled_so = sum(n for (wanted, _), n in counts.items() if wanted == label)
        found = sum(n for (_, verdict), n in counts.items() if verdict == label)
        print(
            f"{part:10} {label:10} {labelled_so:4} texts  "
            f"precision {right / max(1, found):.3f}  recall {right / max(1, labelled_so):.3f}"
        )


def speed(texts: list[Labelled]) -> None:
    """Microseconds of the local judge for one text and for 100 characters, best of five."""
    best = min(timeit.repeat(lambda: [verdict_of(t.text) for t in texts], number=1, repeat=5))
    characters = sum(len(text.text) for text in texts)
    print(
        f"{best / len(texts) * 1e6:.0f} us a text of {characters / len(texts):.0f} characters, "
        f"{best / characters * 1e8:.1f} us per 100 characters"
    )


async def main(name: str) -> None:
    """Measure on the texts that the weights were fitted to, and on those held out."""
    judge = judge_named(load(judge=name))
    assert judge is not None, "judge none gives no verdicts"
    for part in PARTS:
        report(part, await measure(judge, labelled(part)))
    await judge.aclose()
    if name == "local":
        speed([text for text in labelled("voices") if len(text.text) >= 300])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "local"))
