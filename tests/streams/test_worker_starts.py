"""What a worker says when it cannot start."""

import pytest

from schemas.errors import TopicMismatchError
from streams.judge import judge_worker
from streams.mine import mine_worker


@pytest.mark.parametrize("run", [judge_worker.run, mine_worker.run])
def test_missing_topics_are_named_with_the_remedy(run, settings):
    other = settings.model_copy(update={"topic_prefix": "nobody_"})
    with pytest.raises(TopicMismatchError, match=r"nobody_.*retrail topics create"):
        run(other)
