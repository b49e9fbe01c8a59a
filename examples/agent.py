"""An agent of thirty lines that publishes what it does. It has no language model: it reads.

retrail up --env-file retrail.env                 # in one shell
export RETRAIL_ENV_FILE=retrail.env               # in another one
retrail documents load my-corpus.jsonl
python examples/agent.py "how do I open a gzip file"
retrail pairs                                     # what was mined from that
"""

import re
import sys

from retrail import Publisher
from retrail_runtime.logging import configure
from schemas.settings import load
from serving.search.retriever import Retriever

QUESTION = "how do I open a gzip file"


def words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def work(question: str, retriever: Retriever, publisher: Publisher) -> str:
    with publisher.trajectory() as trajectory:  # leaving the block ends the trajectory
        found = retriever.search(question, k=5)
        trajectory.search(question, found.hits, retriever_version=found.retriever_version)
        for hit in found.hits:
            trajectory.browse(hit.doc_id)
            missing = words(question) - words(f"{hit.title} {hit.text}")
            if len(missing) <= len(words(question)) / 2:
                trajectory.reason(f"{hit.title or hit.doc_id} answers what was asked.")
                trajectory.answer(hit.text)
                return hit.text
            trajectory.reason(f"Not relevant: it does not mention {', '.join(sorted(missing))}.")
        trajectory.answer("I do not know.")
        return "I do not know."


if __name__ == "__main__":
    configure("WARNING")
    with Publisher(agent="example", model="none") as publisher, Retriever(load()) as retriever:
        print(work(" ".join(sys.argv[1:]) or QUESTION, retriever, publisher))
