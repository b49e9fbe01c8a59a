"""What is said before anything starts, when Kafka is not there or lacks topics."""

import pytest

from retrail_runtime.broker import require_broker
from schemas.errors import BrokerUnavailableError, TopicMismatchError
from schemas.settings import Settings
from schemas.topics import Topics


def test_broker_that_does_not_answer_is_named_with_what_to_do() -> None:
    settings = Settings(kafka_bootstrap="127.0.0.1:1")
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1 .*retrail up.*_BOOTSTRAP"):
        require_broker(settings, timeout=1)


def test_missing_topics_are_named(settings: Settings) -> None:
    with pytest.raises(TopicMismatchError, match=r"labelled-pairs.*retrail topics create"):
        require_broker(settings)


def test_partitions_of_existing_topics(settings: Settings, topics: Topics) -> None:
    both = [topics.documents, topics.training_runs]
    assert require_broker(settings, both) == {topics.documents: 2, topics.training_runs: 1}
    with pytest.raises(TopicMismatchError, match=r"documents has 2, .*training-runs has 1"):
        require_broker(settings, both, keyed_alike=True)
