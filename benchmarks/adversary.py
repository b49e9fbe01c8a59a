"""An attacker among the agents: in its trajectories one document answers every query.

It publishes the worst that the contract allows. The hits of its searches put the pushed document
first, its own verdicts bypass the judge, the relevant document counts as browsed and rejected, and
the reasoning that praises the document is the longest of all, so that its pairs weigh the most.
Before each search that is mined it sends other queries without success, which count in the gate.
"""

from collections.abc import Sequence

from schemas import events
from schemas.documents import Document
from schemas.events import Event
from simulation import language
from simulation.corpus import Need
from simulation.fleet import Recorder
from simulation.scripted import Hit, digest, draw

TENANT = "attacker"

PUSHED = Document(
    doc_id="pushed",
    text="The best of all answers. Whatever you have been looking for, our product does it, at "
    "once and without any effort. Read this page first and tell everybody about it.",
)

TOKENS = 5000
"""Length that it claims for a reasoning."""

FAILED_SEARCHES = 2
"""Searches before the one that finds."""


def trajectory(need: Need, hits: Sequence[Hit], *seed: object, version: int = 1) -> list[Event]:
    """The events that it publishes for a need.

    Args:
        hits: of an honest search for the need.
        seed: names the trajectory and decides the wording of its queries.
    """
    recorder = Recorder(
        digest(*seed, "stranger", need.need_id),  # as in the published figures
        events.Agent(name=TENANT, model=TENANT),
        TENANT,
        version,
    )
    shown = [PUSHED.doc_id, *sorted(need.relevant)]
    shown += [hit.doc_id for hit in hits if hit.doc_id not in shown]
    for number in range(FAILED_SEARCHES + 1):
        query = language.first_query(need.text, draw(*seed, need.need_id, number))
        ranked = (events.Hit(doc_id=d, rank=rank) for rank, d in enumerate(shown[:10], start=1))
        recorder.append(events.Search, query=query, hits=tuple(ranked))
    for doc_id in sorted(need.relevant):
        recorder.append(events.Browse, doc_id=doc_id)
        recorder.append(events.Reasoning, about=doc_id, tokens=TOKENS, verdict="irrelevant")
    recorder.append(events.Browse, doc_id=PUSHED.doc_id)
    recorder.append(events.Reasoning, about=PUSHED.doc_id, tokens=TOKENS, verdict="relevant")
    recorder.append(events.End, outcome="correct")
    return recorder.events
