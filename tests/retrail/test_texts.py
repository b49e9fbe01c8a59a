"""What of an agent's words leaves the process."""

import pytest

from retrail.texts import Shown, shown

SECRET = "Ann lives in Ulm"


def test_send_changes_nothing() -> None:
    assert shown(SECRET, "send") == Shown(SECRET, changed=False)


def test_withhold_keeps_the_text() -> None:
    assert shown(SECRET, "withhold") == Shown(None, changed=True)


def test_a_hook_redacts() -> None:
    assert shown(SECRET, lambda text: text.replace("Ann", "…")) == Shown(
        "… lives in Ulm", changed=True
    )


def test_a_hook_that_changes_nothing_is_no_change() -> None:
    assert shown(SECRET, str) == Shown(SECRET, changed=False)


def test_a_hook_may_withhold() -> None:
    assert shown(SECRET, lambda text: None) == Shown(None, changed=True)


def test_a_hook_that_raises_withholds_and_its_message_is_not_kept() -> None:
    def hook(text: str) -> str:
        raise ValueError(f"cannot parse {text}")

    result = shown(SECRET, hook)
    assert result == Shown(None, changed=True, failure="ValueError")
    assert SECRET not in repr(result)


@pytest.mark.parametrize("returned", [b"Ann", 7, ["Ann"]])
def test_a_hook_that_returns_no_text_withholds(returned: object) -> None:
    result = shown(SECRET, lambda text: returned)  # type: ignore[arg-type,return-value]
    assert result.text is None
    assert result.failure == f"returned {type(returned).__name__}"
