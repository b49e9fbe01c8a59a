"""Log lines that are suppressed are counted."""

import logging

import pytest

from retrail.reporting import RateLimitedLog


def test_one_line_of_a_kind_in_a_period_and_the_next_has_the_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = 0.0
    lines = RateLimitedLog(every=10.0, now=lambda: clock)
    for _ in range(5):
        lines.add("full", "the queue is full")
    lines.add("large", "too large", level=logging.ERROR)
    assert caplog.messages == ["the queue is full", "too large"]
    clock = 10.0
    lines.add("full", "the queue is full")
    assert caplog.messages[2] == "the queue is full (4 more like it)"
    clock = 20.0
    lines.add("full", "the queue is full")
    assert caplog.messages[3] == "the queue is full"
