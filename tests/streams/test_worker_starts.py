"""What a worker says when it cannot start."""

import pytest

from deploy import ports
from schemas.errors import BrokerUnavailable, TopicMismatch
from schemas.settings import Settings
from streams import judge_worker, mine_worker
from streams.readiness import require_topics


def test_no_broker_is_said_within_bounds():
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{ports.free_ports(1)[0]}")
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:\d+ .*RETRAIL_KAFKA_BOOTSTRAP"):
        require_topics(settings, ["trajectory-events"], patience=1)


@pytest.mark.parametrize("run", [judge_worker.run, mine_worker.run])
def test_missing_topics_are_named_with_the_remedy(run, settings):
    other = settings.model_copy(update={"topic_prefix": "nobody_"})
    with pytest.raises(TopicMismatch, match=r"nobody_.*retrail topics create"):
        run(other)
