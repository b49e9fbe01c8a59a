import pytest
import torch

from trainer.model.pooling import Pooling, pool

STATES = torch.tensor([[3.0, 4.0], [0.0, 2.0], [6.0, 0.0]])
EXPECTED: dict[Pooling, list[float]] = {
    "mean": [9.0, 6.0],
    "cls": [3.0, 4.0],
    "last": [6.0, 0.0],
}


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 3])
def test_padding_on_either_side_changes_nothing(pooling: Pooling, before: int, after: int) -> None:
    padding = torch.full((1, 2), 1e4)
    states = torch.cat([padding.repeat(before, 1), STATES, padding.repeat(after, 1)]).unsqueeze(0)
    mask = torch.tensor([[0] * before + [1] * 3 + [0] * after])

    pooled = pool(states, mask, pooling)

    expected = torch.tensor(EXPECTED[pooling])
    torch.testing.assert_close(pooled, (expected / expected.norm()).unsqueeze(0))


def test_bfloat16_states_give_float32_unit_vectors() -> None:
    pooled = pool(torch.randn(5, 7, 16).bfloat16(), torch.ones(5, 7), "mean")

    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(5))
