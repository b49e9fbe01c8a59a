"""What a process logs: one line an event, and set up again as often as needed."""

import json
import logging

import pytest
import structlog
from structlog.testing import capture_logs

from retrail_runtime.logging import QUIET_LOGGERS, RateLimit, configure

pytestmark = pytest.mark.usefixtures("logging_restored")


def test_an_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json=True)

    structlog.get_logger("retrail.test").warning("pool is small", pool=3)

    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["pool"], line["level"]) == ("pool is small", 3, "warning")
    assert line["logger"] == "retrail.test"


def test_libraries_speak_up_only_from_warnings_on() -> None:
    configure("DEBUG")

    assert {logging.getLogger(name).level for name in QUIET_LOGGERS} == {logging.WARNING}


def test_a_logger_that_has_spoken_follows_a_new_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("retrail.test")
    configure(json=True)
    log.warning("first")

    configure("ERROR", json=True)
    log.warning("second")
    with capture_logs() as said:
        log.error("third")

    assert "second" not in capsys.readouterr().err
    assert [entry["event"] for entry in said] == ["third"]


def test_one_line_of_a_kind_at_a_time() -> None:
    now = 1000.3
    limit = RateLimit(10.0, now=lambda: now)
    assert [limit.allows("a"), limit.allows("a"), limit.allows("b")] == [True, False, True]
    now += 9.9
    assert not limit.allows("a")
    now += 0.2
    assert [limit.allows("a"), limit.allows("b"), limit.allows("a")] == [True, True, False]
