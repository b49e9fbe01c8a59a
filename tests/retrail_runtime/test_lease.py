"""One member holds a lease, the oldest; one with a lower rank goes first."""

from collections.abc import Callable, Iterator

import pytest

from retrail_runtime.kafka.lease import Lease, has_members
from schemas.errors import RestartRequiredError
from schemas.settings import Settings
from schemas.topics import Topics
from tests.waiting import eventually

Join = Callable[..., Lease]


@pytest.fixture
def group(settings: Settings) -> str:
    return settings.group("lease")


@pytest.fixture
def join(settings: Settings, topics: Topics, group: str) -> Iterator[Join]:
    members: list[Lease] = []
    quick = settings.model_copy(update={"kafka_session_timeout": 6.0})

    def _join(rank: int = 1) -> Lease:
        members.append(Lease(quick, topics.retriever_releases, group, rank=rank))
        return members[-1]

    yield _join
    for member in members:
        member.close()


def holders(*members: Lease) -> list[bool]:
    return [member.poll(0.05) for member in members]


def test_the_oldest_member_holds_it_until_it_leaves(join: Join) -> None:
    first = join()
    eventually(lambda: holders(first) == [True])
    others = [join() for _ in range(4)]
    eventually(lambda: holders(first, *others) and all(m.joined for m in others))
    assert holders(first, *others) == [True, False, False, False, False]
    first.close()
    assert not first.held
    eventually(lambda: holders(*others) == [True, False, False, False])


def test_a_lower_rank_takes_it_and_returns_it_by_leaving(join: Join) -> None:
    worker = join()
    eventually(lambda: holders(worker) == [True])
    now = join(rank=0)
    eventually(lambda: holders(worker, now) == [False, True])
    now.close()
    eventually(lambda: holders(worker) == [True])


@pytest.mark.timeout(90)
def test_a_member_that_does_not_poll_loses_it_and_joins_again(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrail_runtime.kafka.lease.MAX_POLL_SECONDS", 6.0)
    silent, other = join(), join()
    eventually(lambda: holders(silent, other) == [True, False])
    eventually(lambda: other.poll(0.1), 60, "the lease on the other member")
    eventually(lambda: holders(silent, other) == [True, False], 60, "the older one again")


def test_a_topic_that_does_not_exist_ends_it(settings: Settings, group: str) -> None:
    lease = Lease(settings, f"{settings.topic_prefix}no-topic", group)
    try:
        with pytest.raises(RestartRequiredError, match=group):
            eventually(lambda: lease.poll(0.1))
    finally:
        lease.close()


@pytest.mark.timeout(60)
def test_others_see_whether_a_group_has_members(join: Join, settings: Settings, group: str) -> None:
    assert not has_members(settings, group)
    worker = join()
    eventually(lambda: holders(worker) == [True])
    assert [has_members(settings, group) for _ in range(5)] == [True] * 5
    worker.close()
    assert not has_members(settings, group)
