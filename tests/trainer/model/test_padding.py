"""Which texts are encoded together."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.model.padding import PAD_TO, alike, padded


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_padded_length(length: int, longest: int) -> None:
    length = min(length, longest)

    assert length <= padded(length, longest) <= longest
    assert padded(length, longest) - length < PAD_TO


@given(st.lists(st.sampled_from([16, 32, 48, 256]), max_size=60), st.integers(1, 8))
def test_texts_of_one_length_go_together_and_none_is_left_out(
    lengths: list[int], batch: int
) -> None:
    tokens = 100
    found = list(alike(lengths, batch, tokens))

    assert sorted(index for indices in found for index in indices) == list(range(len(lengths)))
    for indices in found:
        assert len({lengths[index] for index in indices}) == 1
        assert len(indices) <= batch
        assert len(indices) == 1 or len(indices) * lengths[indices[0]] <= tokens
    longest_first = [lengths[indices[0]] for indices in found]
    assert longest_first == sorted(longest_first, reverse=True)


def test_only_a_cpu_minds_the_tokens() -> None:
    assert list(alike([256] * 5, 4, None)) == [[0, 1, 2, 3], [4]]
