"""One trainer is active, the oldest; `retrail train` goes first."""

from collections.abc import Callable, Iterator

import pytest

from consumers.training.ownership import Ownership, Role, someone_trains
from schemas.settings import Settings
from schemas.topics import Topics
from tests.waiting import eventually

Join = Callable[[Role], Ownership]


@pytest.fixture
def join(settings: Settings, topics: Topics) -> Iterator[Join]:
    members: list[Ownership] = []
    quick = settings.model_copy(update={"kafka_session_timeout": 6.0})

    def _join(role: Role) -> Ownership:
        members.append(Ownership(quick, role))
        return members[-1]

    yield _join
    for member in members:
        member.close()


def owners(*members: Ownership) -> list[bool]:
    return [member.poll(0.05) for member in members]


def test_the_oldest_worker_is_active_and_stays_so(join: Join) -> None:
    first = join("worker")
    eventually(lambda: owners(first) == [True])
    others = [join("worker") for _ in range(4)]
    eventually(lambda: owners(first, *others) and all(m.joined for m in others))
    assert owners(first, *others) == [True, False, False, False, False]
    first.close()
    eventually(lambda: owners(*others) == [True, False, False, False])


def test_retrail_train_takes_the_partition_and_hands_it_back(join: Join) -> None:
    worker = join("worker")
    eventually(lambda: owners(worker) == [True])
    now = join("now")
    eventually(lambda: owners(worker, now) == [False, True])
    now.close()
    eventually(lambda: owners(worker) == [True])


@pytest.mark.timeout(60)
def test_another_asks_whether_someone_trains(join: Join, settings: Settings) -> None:
    assert not someone_trains(settings)
    worker = join("worker")
    eventually(lambda: owners(worker) == [True])
    assert [someone_trains(settings) for _ in range(5)] == [True] * 5
    worker.close()
    assert not someone_trains(settings)
