"""A scripted agent that publishes by itself, with :class:`retrail.Publisher`."""

from retrail import Publisher
from tests.agents.corpus import retriever
from tests.agents.script import Open, Script, Search


def work(script: Script, publisher: Publisher) -> str:
    """Play a script over the corpus; returns the trajectory's id."""
    index = retriever()
    with publisher.trajectory() as trajectory:
        for turn in script.turns:
            trajectory.reason(turn.text)
            match turn.act:
                case Search(query, k):
                    found = index.search(query, k)
                    trajectory.search(query, found.hits)
                    hits = [hit.doc_id for hit in found.hits]
                case Open(rank):
                    trajectory.browse(hits[rank - 1])
                case None:
                    trajectory.answer(turn.text)
    return trajectory.id
