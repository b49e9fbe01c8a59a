"""The error messages of a worker that cannot start."""

import pytest

from schemas.errors import TopicMismatchError
from streams.judge import worker as judge
from streams.mine import worker as mine


@pytest.mark.parametrize("run", [judge.run, mine.run])
def test_missing_topics_are_named_with_the_remedy(run, settings):
    other = settings.model_copy(update={"topic_prefix": "nobody_"})
    with pytest.raises(TopicMismatchError, match=r"nobody_.*retrail topics create"):
        run(other)
