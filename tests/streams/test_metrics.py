"""Foreign text makes a bounded number of series, and all that are known begin at 0."""

import random
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidReason
from streams.metrics import NAMELESS, OTHER, BoundedLabel
from streams.mine.fold import Fold
from streams.mine.worker import _COUNTERS
from tests.effort import examples
from tests.streams.judged_log import LIMITS, disturbed, interleaved, trajectories, written

PAGE = """
import importlib, sys
importlib.import_module(sys.argv[1])
from prometheus_client import generate_latest
print(generate_latest().decode())
"""


def page_of(worker: str) -> str:
    """The metrics of a new process that has imported one worker."""
    command = [sys.executable, "-c", PAGE, worker]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_first_values_keep_their_names():
    label = BoundedLabel(most=2)
    assert [label.of(value) for value in ("a", "b", "c", "a", "c", "")] == [
        "a",
        "b",
        OTHER,
        "a",
        OTHER,
        NAMELESS,
    ]


@given(st.lists(st.text()))
def test_series_are_bounded(values):
    label = BoundedLabel(most=5)
    assert len({label.of(value) for value in values}) <= 5 + 2


@given(trajectories, st.integers(0, 2**32).map(random.Random), st.lists(st.binary(max_size=20)))
@settings(max_examples=examples(100), deadline=None)
def test_a_fold_counts_only_under_labels_that_begin_at_zero(events, rng, garbage):
    fold = Fold(limits=LIMITS)
    log = written(disturbed(interleaved(events, rng), rng))
    for record in log:
        fold.apply(record.offset, record.timestamp, record.value)
    for place, value in enumerate(garbage, len(log)):
        fold.apply(place, 0, value)
    fold.close_all()
    counted = {key for key in fold.counts if key[0] in _COUNTERS}
    assert counted
    for kind, *labels in counted:
        assert tuple(labels) in _COUNTERS[kind]._metrics


@pytest.mark.parametrize(("role", "other"), [("judge", "mine"), ("mine", "judge")])
def test_a_worker_shows_no_series_of_another(role, other):
    page = page_of(f"streams.{role}.worker")
    assert f"retrail_{role}_events_total{{" in page
    assert f"retrail_{other}_" not in page
    assert "retrail_train_" not in page


def test_a_judge_without_a_server_does_not_wait_for_one():
    """Else RetrailJudgeServerDown fires, and RetrailWorkerStuck does not."""
    assert 'retrail_dependency_up{dependency="judge_server"}' not in page_of("streams.judge.worker")


def test_every_reason_of_a_dead_letter_begins_at_zero():
    page = page_of("streams.judge.worker")
    for reason in get_args(InvalidReason):
        assert f'retrail_judge_dead_letters_total{{reason="{reason}"}} 0.0' in page
