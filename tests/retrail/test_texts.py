"""What of an agent's words leaves the process, and how their length is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrail.trajectory import Redacted, count_tokens, redact
from schemas import events as contract

SECRET = "Ann lives in Ulm"


def test_send_changes_nothing() -> None:
    assert redact(SECRET, "send") == Redacted(SECRET, changed=False)


def test_withhold_keeps_the_text() -> None:
    assert redact(SECRET, "withhold") == Redacted(None, changed=True)


def test_a_hook_redacts() -> None:
    assert redact(SECRET, lambda text: text.replace("Ann", "…")) == Redacted(
        "… lives in Ulm", changed=True
    )


def test_a_hook_that_changes_nothing_is_no_change() -> None:
    assert redact(SECRET, str) == Redacted(SECRET, changed=False)


def test_a_hook_may_withhold() -> None:
    assert redact(SECRET, lambda text: None) == Redacted(None, changed=True)


def test_a_hook_that_raises_withholds_and_its_message_is_not_kept() -> None:
    def hook(text: str) -> str:
        raise ValueError(f"cannot parse {text}")

    result = redact(SECRET, hook)
    assert result == Redacted(None, changed=True, failure="ValueError")
    assert SECRET not in repr(result)


@pytest.mark.parametrize("returned", [b"Ann", 7, ["Ann"]])
def test_a_hook_that_returns_no_text_withholds(returned: object) -> None:
    result = redact(SECRET, lambda text: returned)  # type: ignore[arg-type,return-value]
    assert result.text is None
    assert result.failure == f"returned {type(returned).__name__}"


@given(st.text())
def test_client_and_contract_count_the_same_tokens(text: str) -> None:
    assert count_tokens(text) == contract.count_tokens(text)


def test_word_runs_and_other_marks_count_one_each() -> None:
    assert count_tokens("It doesn't — help (2 times).") == 11
