"""A LangChain agent whose work Retrail learns from. It has no language model: it reads.

pip install 'retrail-server[all]'                        # brings LangChain's core
retrail up --env-file retrail.env                 # in one shell
export RETRAIL_ENV_FILE=retrail.env               # in another one
retrail documents load my-corpus.jsonl
python examples/langchain_agent.py "how do I open a gzip file"
"""

import re
import sys

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from retrail import Publisher, Trajectory
from schemas.settings import load
from serving.adapters.langchain import RetrailRetriever
from serving.search.retriever import Retriever

QUESTION = "how do I open a gzip file"


def words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def read(question: str, documents: list[Document], trajectory: Trajectory) -> str:
    """Open one document after the other; your chain would ask its model here."""
    for document in documents:
        trajectory.browse(document.metadata["doc_id"])
        missing = words(question) - words(document.page_content)
        if len(missing) <= len(words(question)) / 2:
            trajectory.reason("This answers what was asked.")
            return document.page_content
        trajectory.reason(f"Not relevant: it does not mention {', '.join(sorted(missing))}.")
    return "I do not know."


def work(question: str, retriever: Retriever, publisher: Publisher) -> str:
    with publisher.trajectory() as trajectory:  # leaving the block ends the trajectory
        searching = RetrailRetriever(retriever=retriever, k=5, trajectory=trajectory)
        reading = RunnableLambda(lambda found: read(question, found, trajectory))
        answer: str = (searching | reading).invoke(question)
        trajectory.answer(answer)
        return answer


if __name__ == "__main__":
    with Publisher(agent="langchain-example") as publisher, Retriever(load()) as retriever:
        print(work(" ".join(sys.argv[1:]) or QUESTION, retriever, publisher))
