"""What an agent sees of hits and documents."""

from serving.retriever import Hit, SearchResult
from serving.tools import SNIPPET_CHARS, SearchAnswer, ShownHit


def test_a_hit_shows_the_beginning_of_its_text() -> None:
    shown = ShownHit.of(Hit("a", 1, 0.123456, "A", "word " * 1000))
    assert len(shown.snippet) == SNIPPET_CHARS
    assert shown.snippet.startswith("word word")
    assert shown.snippet.endswith("…")
    assert shown.score == 0.1235
    assert ShownHit.of(Hit("a", 1, 0.5, "A", "short")).snippet == "short"


def test_an_answer_carries_version_and_trajectory() -> None:
    answer = SearchAnswer.of(SearchResult([Hit("a", 1, 0.5, "A", "text")], 3), "t")
    assert (answer.retriever_version, answer.trajectory_id) == (3, "t")
    assert [hit.doc_id for hit in answer.hits] == ["a"]
