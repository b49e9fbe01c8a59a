"""The client counts tokens exactly as the judge does."""

from hypothesis import given
from hypothesis import strategies as st

from retrail.tokens import count_tokens
from schemas import tokens as contract


@given(st.text())
def test_client_and_contract_count_alike(text: str) -> None:
    assert count_tokens(text) == contract.count_tokens(text)


def test_word_runs_and_other_marks_count_one_each() -> None:
    assert count_tokens("It doesn't — help (2 times).") == 11
