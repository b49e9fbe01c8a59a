"""Work side by side, one core for each piece."""

import threading

import pytest
import torch

from trainer.model.cores import side_by_side

pytestmark = pytest.mark.usefixtures("two_cores")


def test_every_item_comes_with_its_result() -> None:
    assert dict(side_by_side(lambda item: item * 2, range(50))) == {n: 2 * n for n in range(50)}
    assert list(side_by_side(str, [])) == []


def test_two_are_in_work_at_once_and_each_has_one_of_torchs_threads() -> None:
    both = threading.Barrier(2)

    def work(_: int) -> int:
        both.wait(timeout=30)
        return torch.get_num_threads()

    assert [threads for _, threads in side_by_side(work, range(6))] == [1] * 6


def test_other_threads_keep_theirs() -> None:
    found: list[int] = []
    for _ in side_by_side(str, range(3)):
        born = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        born.start()
        born.join()

    assert found == [2, 2, 2]
    assert torch.get_num_threads() == 2


def test_a_failure_is_raised_and_what_is_not_in_work_is_let_be() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            failed.set()
            raise ValueError("no")
        failed.wait(timeout=30)

    with pytest.raises(ValueError, match="no"):
        list(side_by_side(work, range(10_000)))
    assert len(begun) <= 8


def test_nothing_more_is_begun_when_nobody_wants_it() -> None:
    begun: list[int] = []
    done = side_by_side(begun.append, range(10_000))
    next(done)
    done.close()
    assert len(begun) <= 8
