import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.joint_training import WAYS, computed
from trainer.fit import gradients, processes
from trainer.fit.processes import SINGLE_PROCESS, Processes

ROOT = Path(__file__).parents[3]
Found = dict[str, Any]


@pytest.fixture(scope="module")
def together(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found]:
    """Results of two processes that torchrun started."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr"]
    command += ["127.0.0.1", "--nproc-per-node", "2", "-m", "tests.trainer.joint_training"]
    subprocess.run([*command, str(tiny), str(folder)], cwd=ROOT, check=True, timeout=240)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def alone(tiny: Path) -> Found:
    """Results of a single process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "computes_in_bfloat16", lambda device: False)
        return computed(tiny, SINGLE_PROCESS)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_have_the_loss_and_gradients_of_the_joint_batch(
    together: tuple[Found, Found], alone: Found, way: str
) -> None:
    loss, expected = alone[way]
    for found_loss, found in (process[way] for process in together):
        assert found_loss == pytest.approx(loss, rel=1e-12)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-12)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3


def test_two_processes_train_one_child(together: tuple[Found, Found], alone: Found) -> None:
    first, second = together

    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-3)
    for name, weights in alone["child"].items():
        assert torch.equal(first["child"][name], second["child"][name])
        torch.testing.assert_close(first["child"][name], weights, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_item_is_in_one_shard(size: int) -> None:
    shards = [list(Processes(rank, size).shard(range(4))) for rank in range(size)]

    assert sorted(item for shard in shards for item in shard) == [0, 1, 2, 3]


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    with processes.joined() as alone:
        assert alone == SINGLE_PROCESS
        assert alone.first
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("bucket", [1, 10, 1000])
def test_gradients_are_reduced_in_buckets(monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    monkeypatch.setattr(processes, "BUCKET", bucket)
    tensors = [torch.zeros(size) for size in (4, 4, 4, 20, 1)]

    buckets = list(processes._buckets(tensors))

    assert [id(t) for some in buckets for t in some] == [id(t) for t in tensors]
    assert all(len(some) == 1 or sum(t.numel() for t in some) <= bucket for some in buckets)
