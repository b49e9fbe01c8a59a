"""An agent of thirty lines that publishes what it does. It has no language model: it reads.

It needs only the client (`pip install ./retrail`) and searches in a file of documents.

retrail up --env-file retrail.env                 # in one shell
export RETRAIL_ENV_FILE=$PWD/retrail.env          # in another one
retrail documents load my-corpus.jsonl
python examples/agent.py my-corpus.jsonl "how do I open a gzip file"
retrail pairs                                     # the pairs that were mined from it
"""

import json
import re
import sys
from pathlib import Path

from retrail import Publisher


def words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def search(question: str, documents: dict[str, str], k: int = 5) -> list[str]:
    """Your search tool: here, ids by the number of common words."""
    common = {name: len(words(question) & words(text)) for name, text in documents.items()}
    return sorted(common, key=lambda name: (-common[name], name))[:k]


def work(question: str, documents: dict[str, str], publisher: Publisher) -> str:
    with publisher.trajectory() as trajectory:  # leaving the block ends the trajectory
        found = search(question, documents)
        trajectory.search(question, found)
        for doc_id in found:
            trajectory.browse(doc_id)
            missing = words(question) - words(documents[doc_id])
            if len(missing) <= len(words(question)) / 2:
                trajectory.reason(f"{doc_id} answers what was asked.")
                trajectory.answer(documents[doc_id])
                return documents[doc_id]
            trajectory.reason(f"Not relevant: it does not mention {', '.join(sorted(missing))}.")
        trajectory.answer("I do not know.")
        return "I do not know."


if __name__ == "__main__":
    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()]
    texts = {each["doc_id"]: each["text"] for each in lines}
    with Publisher(agent="example", model="none") as publisher:
        print(work(" ".join(sys.argv[2:]), texts, publisher))
