import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from schemas.errors import RestartRequiredError
from trainer.model import batches, loading
from trainer.model.batches import padded_length
from trainer.model.encoder import Encoder, Kind
from trainer.model.loading import PoolingMode, Precision
from trainer.model.presets import Preset
from trainer.registry.manifest import digest_of

ROOT = Path(__file__).parents[3]
WORDS = ["a", "retriever", "learns", "from", "what", "agents", "do", "with", "documents", "found"]
DRAW = random.Random(7)
TEXTS = [" ".join(DRAW.choices(WORDS, k=DRAW.randint(1, 12))) for _ in range(50)]


def test_vectors_are_normalised_float32_in_order(encoder: Encoder) -> None:
    vectors = encoder.encode_documents([*TEXTS, TEXTS[0]])

    assert vectors.shape == (51, encoder.dimension) == (51, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[50], vectors[0])
    assert len(np.unique(vectors, axis=0)) == len(set(TEXTS))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [1, 300, 4096])
def test_a_vector_does_not_depend_on_the_other_texts(
    tiny: Path, precision: Precision, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny, precision=precision, device="cpu")
    monkeypatch.setattr(batches, "_LEAST_TOKENS_ON_A_CORE", tokens)
    together = encoder.encode_documents(TEXTS)

    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(encoder.encode_documents([text])[0], vector)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.usefixtures("two_cores")
def test_a_vector_does_not_depend_on_the_number_of_cores(tiny: Path, precision: Precision) -> None:
    encoder = Encoder.load(tiny, precision=precision, device="cpu")
    in_parallel = encoder.encode_documents(TEXTS)

    for text, vector in zip(TEXTS, in_parallel, strict=True):
        np.testing.assert_array_equal(encoder.encode_documents([text])[0], vector)


class Full:
    """A model that runs out of memory above ``room`` tokens."""

    def __init__(self, encoder: Encoder, room: int, error: Exception) -> None:
        self.encoder, self.room, self.error = encoder, room, error
        self.sizes: list[int] = []
        self._forward = encoder.forward

    def forward(self, rows: Sequence[Sequence[int]], kind: Kind, *, model: Any = None) -> Tensor:
        self.sizes.append(len(rows))
        if len(rows) * padded_length(max(map(len, rows)), self.encoder.max_tokens) > self.room:
            raise self.error
        return self._forward(rows, kind, model=model)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
    ),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_batches_shrink_permanently_until_they_fit_into_memory(
    tiny: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny, device="cpu")
    expected = encoder.encode_documents(TEXTS)
    longest = encoder.max_tokens
    full = Full(encoder, 5 * longest, error)
    monkeypatch.setattr(encoder, "forward", full.forward)

    np.testing.assert_array_equal(encoder.encode_documents(TEXTS), expected)
    failed = len(full.sizes)
    full.sizes.clear()
    np.testing.assert_array_equal(encoder.encode_documents(TEXTS), expected)
    assert len(full.sizes) < failed
    assert len(encoder.encode_documents(["word " * longest] * 1)) == 1


@pytest.mark.usefixtures("two_cores")
def test_batches_that_do_not_fit_together_are_encoded_one_by_one(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny, device="cpu")
    expected = encoder.encode_documents(TEXTS)
    threads: set[str] = set()

    def forward(rows: Sequence[Sequence[int]], kind: Kind, *, model: Any = None) -> Tensor:
        threads.add(threading.current_thread().name)
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return Encoder.forward(encoder, rows, kind, model=model)

    monkeypatch.setattr(encoder, "forward", forward)

    np.testing.assert_array_equal(encoder.encode_documents(TEXTS), expected)
    assert len(threads) > 1
    threads.clear()
    np.testing.assert_array_equal(encoder.encode_documents(TEXTS), expected)
    assert threads == {threading.main_thread().name}


def test_a_single_text_that_does_not_fit_is_an_error(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny, device="cpu")
    monkeypatch.setattr(encoder, "forward", Full(encoder, 16, MemoryError()).forward)
    assert encoder.encode_documents(["a", "b", "c"]).shape == (3, 32)
    with pytest.raises(
        RestartRequiredError, match=r"a single text of 64 tokens on cpu.*RETRAIL_INDEX_MAX_TOKENS"
    ):
        encoder.encode_documents(["word " * 100])


def test_other_errors_of_the_model_are_raised(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(tiny, device="cpu")
    full = Full(encoder, 0, RuntimeError("shapes cannot be multiplied"))
    monkeypatch.setattr(encoder, "forward", full.forward)
    with pytest.raises(RuntimeError, match="shapes"):
        encoder.encode_documents(["a", "b"])
    assert full.sizes == [2]


@pytest.mark.parametrize("spoilt", [False, True])
def test_an_encoder_that_only_encodes_keeps_one_set_of_weights_and_equal_vectors(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bool
) -> None:
    """Also where the optimisation for the CPU failed, after it had changed the model."""
    texts = ["one", "two words", "three short words"]
    if spoilt:
        monkeypatch.setattr("trainer.model.cpu.optimize", lambda model: model.half() and None)
    both = Encoder.load(tiny, precision="bfloat16", device="cpu")
    one = Encoder.load(tiny, precision="bfloat16", device="cpu", encodes_only=True)
    np.testing.assert_array_equal(one.encode_documents(texts), both.encode_documents(texts))
    assert one._encoding_model is one.model
    (transformer,) = loading.transformers_of(one.model)
    assert {parameter.dtype for parameter in transformer.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in both.model.parameters()} == {torch.float32}


@pytest.mark.usefixtures("two_cores")
def test_minilm_in_bfloat16_is_close_to_float32_alone_and_in_a_batch() -> None:
    texts = [f"{text}. " * (1 + index % 9) for index, text in enumerate(TEXTS[:12])]
    exact = Encoder.load("minilm", precision="float32", device="cpu").encode_documents(texts)
    encoder = Encoder.load("minilm", precision="bfloat16", device="cpu")

    fast = encoder.encode_documents(texts)

    assert (exact * fast).sum(1).min() > 0.999
    for text, vector in zip(texts, fast, strict=True):
        alone = encoder.encode_documents([text])[0]
        if torch.cpu._is_amx_tile_supported():
            assert alone @ vector > 0.9999
        else:
            np.testing.assert_array_equal(alone, vector)


def test_no_text_and_an_empty_text_can_be_encoded(encoder: Encoder) -> None:
    assert encoder.encode_queries([]).shape == (0, 32)
    assert np.isfinite(encoder.encode_queries([""])).all()


def test_prefixes_are_put_before_texts(tiny: Path) -> None:
    plain = Encoder.load(tiny)
    prefixed = Encoder.load(tiny, preset=Preset("mean", "ask: ", "doc: "))

    np.testing.assert_array_equal(prefixed.encode_queries(["x"]), plain.encode_queries(["ask: x"]))
    np.testing.assert_array_equal(
        prefixed.encode_documents(["x"]), plain.encode_documents(["doc: x"])
    )


def test_long_texts_are_truncated(tiny: Path) -> None:
    encoder = Encoder.load(tiny, max_tokens=20)
    short, long = "abc " * 6, "abc " * 500

    np.testing.assert_array_equal(encoder.encode_queries([long]), encoder.encode_queries([short]))
    assert Encoder.load(tiny, max_tokens=4096).max_tokens == 64
    assert Encoder.load(tiny, max_tokens=None).max_tokens == 64


def test_progress_counts_up_to_the_number_of_texts(encoder: Encoder) -> None:
    seen: list[tuple[int, int]] = []

    encoder.encode_documents([*TEXTS, *TEXTS], progress=lambda *done: seen.append(done))

    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == (100, 100)


def test_threads_share_an_encoder(encoder: Encoder) -> None:
    expected = encoder.encode_queries(TEXTS)
    wrong: list[int] = []

    def ask(start: int) -> None:
        wrong.extend(
            index
            for index in range(start, len(TEXTS), 4)
            if not np.array_equal(encoder.encode_queries([TEXTS[index]])[0], expected[index])
        )

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_sentence_transformers_loads_a_saved_model(
    tiny: Path, tmp_path: Path, pooling: PoolingMode
) -> None:
    encoder = Encoder.load(
        tiny,
        preset=Preset(pooling, "ask: ", "doc: "),
        max_tokens=24,
        precision="float32",
    )

    encoder.save(tmp_path / "saved")

    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = [*TEXTS, "abc " * 200]
    queries, documents = encoder.encode_queries(texts), encoder.encode_documents(texts)
    assert (theirs.encode_query(texts) * queries).sum(1).min() > 0.9999
    assert (theirs.encode_document(texts) * documents).sum(1).min() > 0.9999
    again = Encoder.load(tmp_path / "saved", precision="float32")
    assert (again.prompts, again.max_tokens) == (("ask: ", "doc: "), 24)
    np.testing.assert_array_equal(again.encode_queries(texts), queries)
    np.testing.assert_array_equal(again.encode_documents(texts), documents)
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix == ".bin"]


def test_minilm_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    encoder = Encoder.load("minilm", precision="float32", device="cpu")
    encoder.save(tmp_path)

    theirs = SentenceTransformer(str(tmp_path), device="cpu")

    assert (theirs.encode(TEXTS) * encoder.encode_documents(TEXTS)).sum(1).min() > 0.9999
    assert theirs.max_seq_length == encoder.max_tokens == 256


def test_saving_twice_gives_the_same_files(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "one")
    encoder.encode_queries(["something else " * 50])
    encoder.save(tmp_path / "two")
    Encoder.load(tmp_path / "one").save(tmp_path / "three")

    digests = {digest_of(tmp_path / name) for name in ("one", "two", "three")}
    assert len(digests) == 1


def test_a_copy_has_weights_of_its_own(encoder: Encoder) -> None:
    before = encoder.encode_queries(TEXTS)
    twin = encoder.copy()

    for parameter in twin.model.parameters():
        parameter.data.mul_(1.5)

    np.testing.assert_array_equal(encoder.encode_queries(TEXTS), before)
    assert not np.array_equal(twin.encode_queries(TEXTS), before)


def test_transformers_models_are_imported_with_the_first_model() -> None:
    code = (
        "import sys, trainer.model.encoder, trainer.fit.finetune; "
        "sys.exit(not {'transformers', 'sentence_transformers'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0
