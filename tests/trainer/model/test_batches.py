"""Batches of texts, and parallel work with one core per batch."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.model.batches import PAD_TO, length_buckets, padded_length, parallel_map

two_cores = pytest.mark.usefixtures("two_cores")


@two_cores
def test_every_item_comes_with_its_result() -> None:
    assert dict(parallel_map(lambda item: item * 2, range(50))) == {n: 2 * n for n in range(50)}
    assert list(parallel_map(str, [])) == []


@two_cores
def test_items_run_in_parallel_with_one_torch_thread_each() -> None:
    both = threading.Barrier(2)

    def work(_: int) -> int:
        both.wait(timeout=30)
        return torch.get_num_threads()

    assert [threads for _, threads in parallel_map(work, range(6))] == [1] * 6


@two_cores
def test_other_threads_keep_their_number_of_torch_threads() -> None:
    found: list[int] = []
    for _ in parallel_map(str, range(3)):
        born = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        born.start()
        born.join()

    assert found == [2, 2, 2]
    assert torch.get_num_threads() == 2


@two_cores
def test_an_error_is_raised_and_pending_items_are_dropped() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            failed.set()
            raise ValueError("no")
        failed.wait(timeout=30)

    with pytest.raises(ValueError, match="no"):
        list(parallel_map(work, range(10_000)))
    assert len(begun) <= 8


@two_cores
def test_closing_the_generator_drops_pending_items() -> None:
    begun: list[int] = []
    done = parallel_map(begun.append, range(10_000))
    next(done)
    done.close()
    assert len(begun) <= 8


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_padded_length(length: int, longest: int) -> None:
    length = min(length, longest)

    assert length <= padded_length(length, longest) <= longest
    assert padded_length(length, longest) - length < PAD_TO


@given(st.lists(st.sampled_from([16, 32, 48, 256]), max_size=60), st.integers(1, 300))
def test_length_buckets_hold_every_text_once_by_length(lengths: list[int], tokens: int) -> None:
    found = list(length_buckets(lengths, tokens))

    assert sorted(index for indices in found for index in indices) == list(range(len(lengths)))
    for indices in found:
        assert len({lengths[index] for index in indices}) == 1
        assert len(indices) == 1 or len(indices) * lengths[indices[0]] <= tokens
    longest_first = [lengths[indices[0]] for indices in found]
    assert longest_first == sorted(longest_first, reverse=True)
