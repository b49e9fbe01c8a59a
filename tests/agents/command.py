"""The command `retrail` over the corpus of scripted agents: searches need no index and no model."""

from typing import Any

from retrail_cli import main
from serving import retriever as retriever_module
from tests.agents.corpus import retriever


def over_the_corpus(*_: Any, **__: Any) -> Any:
    """In place of the retriever."""
    return retriever()


if __name__ == "__main__":
    retriever_module.Retriever = over_the_corpus  # type: ignore[misc, assignment]
    main()
