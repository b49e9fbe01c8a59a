"""The dense retriever: a ``SentenceTransformer`` that encodes texts as L2-normalised vectors.

Vectors are deterministic, because the index caches them by content: on one machine, with one
version of Retrail and torch and one number of threads, a text's vector depends on the text and the
model alone. A text is padded to the next multiple of 8 and batched only with texts of that padded
length, and the CPU's matrix kernels compute a row independently of the other rows, on one core or
on all (tested: bit-identical alone and in any batch; after a Dense module, which has one row per
text, within float32 rounding). On processors with AMX oneDNN orders the sums of a product by its
number of rows, so a text's vectors in two batches can differ (cosine > 0.9999). Between machines,
or a CPU and a GPU, vectors agree to about the precision of bfloat16 (cosine > 0.999).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import RestartRequiredError
from trainer import metrics
from trainer.model import loading
from trainer.model.batches import (
    TOKENS_ON_A_GPU,
    is_out_of_memory,
    length_buckets,
    padded_length,
    parallel_map,
    tokens_per_core,
)
from trainer.model.loading import (
    Precision,
    encodes_in_bfloat16,
    in_bfloat16,
    with_own_weights,
)
from trainer.model.location import locate
from trainer.model.presets import Preset

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

log = structlog.get_logger(__name__)

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], object]
"""Called with the number of encoded texts and the number of all texts."""

Kind = Literal["query", "document"]
"""Kind of a text; it selects the prompt, and the route of a Router."""

_KINDS: tuple[Kind, ...] = ("query", "document")

_TOKENIZED_AT_ONCE = 256


class Encoder:
    """A ``SentenceTransformer`` with prompts and length limit, for training and for search.

    Safe to share between threads. A call with few batches encodes them one by one, with all of
    torch's threads and under a lock, so that concurrent callers do not oversubscribe the cores. A
    call with at least one batch per core runs one batch per core without the lock, so a search does
    not wait for a long build in the same process.

    Attributes:
        model: weights in float32, unless it only encodes (:meth:`load`).
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        *,
        precision: Precision = "auto",
        lock: "threading.Lock | None" = None,
    ) -> None:
        self.model = model.eval()
        self._precision: Precision = precision
        self._lock = lock or threading.Lock()
        self._encoding_model: SentenceTransformer | None = None
        self._fitting_tokens: int | None = None
        self._memory_ended = False
        with self._lock:
            self._prompt_length = {kind: self._tokens_of_prompt(kind) for kind in _KINDS}

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        max_tokens: int | None = 256,
        preset: Preset | None = None,
        precision: Precision = "auto",
        device: str | None = None,
        encodes_only: bool = False,
    ) -> "Encoder":
        """Load a model.

        Args:
            model: ``minilm``, a folder, or a name on the Hugging Face Hub.
            max_tokens: longer texts are truncated; a lower limit of the model applies. ``None``:
                the model's limit.
            preset: pooling, and prefixes of queries and documents, that the model's files lack; by
                default mean pooling without prefixes. A saved release needs no preset.
            precision: to encode in; ``auto`` is bfloat16 if the device computes in it.
            device: ``cpu``, ``cuda``, …; by default a GPU if there is one.
            encodes_only: keep the weights in the precision of encoding alone. Such an encoder
                cannot be trained, copied or saved.

        Raises:
            ModelError: there is no such model, or it is not supported: see
                :func:`trainer.model.loading.load`.
        """
        preset = preset or Preset()

        def load() -> "SentenceTransformer":
            return _loaded(model, preset, max_tokens, device)

        encoder = cls(load(), precision=precision)
        if encodes_only and encodes_in_bfloat16(precision, encoder.device):
            encoder.model = encoder._encoding_model = _optimized(in_bfloat16(encoder.model), load)
        return encoder

    @property
    def dimension(self) -> int:
        """Dimension of the vectors."""
        dimension = self.model.get_embedding_dimension()
        assert dimension is not None
        return dimension

    @property
    def max_tokens(self) -> int:
        """Maximum length of a text, special tokens and prompt included."""
        limits = [module.max_seq_length for module in loading.transformers_of(self.model)]
        return max(limit for limit in limits if limit is not None)

    @property
    def prompts(self) -> tuple[str, str]:
        """The prompts of queries and of documents."""
        return loading.choose_prompts(self.model.prompts)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    def copy(self) -> "Encoder":
        """An encoder with its own weights; the tokenizer, and therefore the lock, are shared."""
        return Encoder(with_own_weights(self.model), precision=self._precision, lock=self._lock)

    def encode_queries(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Vectors of queries: (n, dimension) float32, L2-normalised, in the order of ``texts``."""
        return self._encode(texts, "query", progress)

    def encode_documents(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> Vectors:
        """Vectors of documents: (n, dimension) float32, L2-normalised, in the order of ``texts``.

        Equal texts are encoded once.
        """
        return self._encode(texts, "document", progress)

    def tokenize(
        self, texts: Sequence[str], kind: Kind, max_tokens: int | None = None
    ) -> list[list[int]]:
        """Token ids of texts with their prompt, truncated to ``max_tokens``."""
        module = self._input_module(kind)
        longest = min(max_tokens or self.max_tokens, self._most_tokens(kind))
        options = {"padding": False, "max_length": longest}
        rows: list[list[int]] = []
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            with self._lock:
                features = module.preprocess(
                    list(texts[start : start + _TOKENIZED_AT_ONCE]),
                    prompt=self.model.prompts[kind],
                    processing_kwargs={"text": options, "common": {"return_tensors": None}},
                )
            rows.extend(features["input_ids"])
        # A tokenizer without special tokens gives no token for an empty text.
        return [row or [self._padding(kind)] for row in rows]

    def forward(
        self,
        rows: Sequence[Sequence[int]],
        kind: Kind,
        *,
        model: "SentenceTransformer | None" = None,
    ) -> Tensor:
        """Vectors of token ids, in one padded batch; differentiable if gradients are enabled.

        Args:
            rows: token ids from :meth:`tokenize`.
            kind: of all texts.
            model: by default :attr:`model`.

        Returns:
            (n, dimension) float32 (float64 if the weights are), L2-normalised, on the model's
            device.
        """
        model = self.model if model is None else model
        length = padded_length(max(map(len, rows)), self._most_tokens(kind))
        ids = torch.full((len(rows), length), self._padding(kind))
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        features = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            **self._prompt_length[kind],
        }
        vectors: Tensor = model(features, task=kind)["sentence_embedding"]
        vectors = vectors[:, : self.dimension]
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        return torch.nn.functional.normalize(vectors, dim=-1)

    def save(self, path: Path) -> None:
        """Write the model into the folder ``path`` in sentence-transformers format.

        Equal encoders give equal files (safetensors only), hence equal digests.
        """
        with self._lock:
            loading.save(self.model, path)

    def _encode(
        self, texts: Sequence[str], kind: Kind, progress: Progress | None = None
    ) -> Vectors:
        metrics.ENCODED.labels(kind).inc(len(texts))
        distinct = list(dict.fromkeys(texts))
        vectors = np.empty((len(distinct), self.dimension), dtype=np.float32)
        done = 0
        with metrics.ENCODING_SECONDS.time():
            rows = self.tokenize(distinct, kind)
            lengths = [padded_length(len(row), self._most_tokens(kind)) for row in rows]
            tokens = TOKENS_ON_A_GPU
            if self.device.type == "cpu":
                tokens = tokens_per_core(sum(lengths), torch.get_num_threads())
            for indices, part in self._batches(rows, kind, list(length_buckets(lengths, tokens))):
                vectors[indices] = part
                done += len(indices)
                if progress is not None:
                    progress(done * len(texts) // len(distinct), len(texts))
        position = {text: index for index, text in enumerate(distinct)}
        return vectors[[position[text] for text in texts]]

    def _batches(
        self, rows: Sequence[Sequence[int]], kind: Kind, batches: list[list[int]]
    ) -> Iterator[tuple[list[int], Vectors]]:
        """Vectors of each batch of indices of ``rows``."""
        if self._one_core_each(len(batches)):
            with self._lock:
                self._model_for_encoding()
            too_large = []
            for indices, part in parallel_map(
                lambda indices: self._try_forward([rows[i] for i in indices], kind), batches
            ):
                if part is None:
                    too_large.append(indices)
                else:
                    yield indices, part
            batches = too_large
        for indices in batches:
            yield indices, self._forward_in_parts([rows[i] for i in indices], kind)

    def _one_core_each(self, batches: int) -> bool:
        cores = torch.get_num_threads()
        return self.device.type == "cpu" and 1 < cores <= batches and not self._memory_ended

    def _forward_in_parts(self, rows: Sequence[Sequence[int]], kind: Kind) -> Vectors:
        """Vectors of rows of one padded length, in smaller batches after running out of memory.

        Raises:
            RestartRequiredError: a single row does not fit into memory.
        """
        length = padded_length(max(map(len, rows)), self._most_tokens(kind))
        parts: list[Vectors] = []
        start = 0
        while start < len(rows):
            size = len(rows) - start
            if self._fitting_tokens is not None:
                size = min(size, max(1, self._fitting_tokens // length))
            with self._lock:
                part = self._try_forward(rows[start : start + size], kind)
            if part is not None:
                parts.append(part)
                start += size
                continue
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if size == 1:
                raise RestartRequiredError(
                    f"Out of memory while encoding a single text of {length} tokens on "
                    f"{self.device}. Free memory (other processes, a smaller model), or lower "
                    "RETRAIL_INDEX_MAX_TOKENS before the first release."
                )
            self._fitting_tokens = size // 2 * length
            log.warning("out of memory, reducing the batch size", texts=size // 2)
        return np.concatenate(parts)

    def _try_forward(self, rows: Sequence[Sequence[int]], kind: Kind) -> Vectors | None:
        """Vectors; ``None`` if out of memory: the exception would keep tensors alive."""
        try:
            with torch.inference_mode():
                vectors = self.forward(rows, kind, model=self._model_for_encoding())
                encoded: Vectors = vectors.cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._memory_ended = True
            return None
        return encoded

    def _model_for_encoding(self) -> "SentenceTransformer":
        """The model, or a copy in bfloat16, optimised for the CPU, if that is faster."""
        if not encodes_in_bfloat16(self._precision, self.device):
            return self.model
        if self._encoding_model is None:

            def copy() -> "SentenceTransformer":
                return with_own_weights(self.model)

            self._encoding_model = _optimized(in_bfloat16(copy()), copy)
        return self._encoding_model

    def _input_module(self, kind: Kind) -> "Transformer":
        first: Any = self.model[0]
        found: Transformer = first.sub_modules[kind][0] if hasattr(first, "sub_modules") else first
        return found

    def _tokens_of_prompt(self, kind: Kind) -> dict[str, int]:
        """Length of the prompt, for a Pooling that excludes it; empty without a prompt."""
        features = self._input_module(kind).preprocess(["text"], prompt=self.model.prompts[kind])
        return {name: features[name] for name in ("prompt_length",) if name in features}

    def _most_tokens(self, kind: Kind) -> int:
        longest = self._input_module(kind).max_seq_length
        assert longest is not None
        return longest

    def _padding(self, kind: Kind) -> int:
        tokenizer = self._input_module(kind).tokenizer
        assert tokenizer is not None
        for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def _loaded(
    model: str | Path, preset: Preset, max_tokens: int | None, device: str | None
) -> "SentenceTransformer":
    found = loading.load(
        locate(str(model)),
        pooling=preset.pooling,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    loading.set_prompts(found, preset.query_prefix, preset.document_prefix)
    for transformer in loading.transformers_of(found):
        longest = loading.longest_input(transformer)
        if max_tokens is not None and longest < max_tokens:
            log.info(
                "model limits the input length", model=str(model), wanted=max_tokens, max=longest
            )
        transformer.max_seq_length = min(longest, max_tokens or longest)
    return found


def _optimized(
    model: "SentenceTransformer", again: "Callable[[], SentenceTransformer]"
) -> "SentenceTransformer":
    """A model in bfloat16, optimised if that is possible on its device.

    Args:
        again: returns the model in float32 once more, if the optimisation has spoilt it.
    """
    if next(model.parameters()).device.type != "cpu":
        return model
    from trainer.model import cpu

    return cpu.optimize(model) or in_bfloat16(again())
