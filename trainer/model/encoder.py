"""The dense retriever: texts to L2-normalised vectors.

What is guaranteed of vectors, because an index is addressed by content: on one machine, with one
version of Retrail and torch and one number of threads, a text's vector is a function of the text
and the model alone. A text is padded to the next multiple of 8 above its own length and only meets
texts of that padded length, and the matrix kernels of the CPU sum a row alike whatever stands
beside it, on one core or on all (tested: bit for bit, alone and in any batch). Between machines, or
a CPU and a GPU, vectors agree to about the precision of bfloat16 (cosine > 0.999).
"""

import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import RestartRequiredError
from trainer import metrics
from trainer.model import layout as layouts
from trainer.model import loading
from trainer.model.cores import side_by_side
from trainer.model.layout import Layout
from trainer.model.models import locate
from trainer.model.packed import pack
from trainer.model.padding import alike, on_a_core, padded
from trainer.model.pooling import Pooling, pool
from trainer.model.precision import computes_in_bfloat16
from trainer.model.presets import Preset, prepare

log = structlog.get_logger(__name__)

Vectors = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with how many texts are done and how many there are."""

Precision = Literal["auto", "float32", "bfloat16"]

_TOKENIZED_AT_ONCE = 256

_FALLBACK_TOKENS = 512
"""Where neither the caller nor the model's files limit the length."""


class Encoder:
    """A transformer with its tokenizer, pooling, prefixes and length limit.

    Safe to share between threads, and a search is not kept waiting by a long build in the same
    process: a single batch has all of torch's threads and holds the lock, so that callers do not
    crowd the cores; where a CPU has no more cores than there are batches, each has one core, and
    none holds the lock.

    Attributes:
        model: the transformer, weights in float32.
        layout: pooling, length limit and prefixes.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layout: Layout,
        *,
        precision: Precision = "auto",
        lock: "threading.Lock | None" = None,
    ) -> None:
        self.model = model.eval()
        self.layout = layout
        self._tokenizer = tokenizer
        self._precision: Precision = precision
        self._lock = lock or threading.Lock()
        self._working_copy: Any = None
        self._fitting_tokens: int | None = None
        self._memory_ended = False
        # A decoder would keep all keys and values for a next token, which never comes.
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        self._options = {"use_cache": False} if takes_cache else {}

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        query_prefix: str = "",
        document_prefix: str = "",
        pooling: Pooling | Literal["auto"] = "auto",
        max_tokens: int | None = 256,
        preset: Preset | None = None,
        precision: Precision = "auto",
        device: str | None = None,
    ) -> "Encoder":
        """Load a model.

        Args:
            model: ``minilm``, a folder, or a name on the Hugging Face Hub.
            query_prefix: put before every query; empty: what the model's prompts say.
            document_prefix: put before every document; likewise.
            pooling: ``auto`` reads the model's sentence-transformers files, else the preset's.
            max_tokens: longer texts are cut; the model's own limit holds if it is lower, or alone
                if this is ``None``.
            preset: holds where neither these arguments nor the model's files say; by default mean
                pooling without prefixes. What a release saved needs none.
            precision: to encode in; ``auto`` is bfloat16 where the machine computes in it.
            device: ``cpu``, ``cuda``, …; by default a GPU if there is one.

        Raises:
            ModelError: there is no such model, its weights are not safetensors, or it needs code
                of its own.
        """
        folder = locate(str(model))
        found = layouts.read(folder, pooling, preset.layout if preset else Layout())
        loaded, tokenizer = loading.read(folder)
        if preset is not None:
            prepare(tokenizer, preset)
        limits = [max_tokens, found.max_tokens, *loading.limits(loaded.config, tokenizer)]
        longest = min((limit for limit in limits if limit is not None), default=_FALLBACK_TOKENS)
        if max_tokens is not None and longest < max_tokens:
            log.info("model reads fewer tokens", model=str(model), wanted=max_tokens, reads=longest)
        layout = replace(
            found,
            max_tokens=longest,
            query_prefix=query_prefix or found.query_prefix,
            document_prefix=document_prefix or found.document_prefix,
        )
        loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(loaded, tokenizer, layout, precision=precision)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self.model.config.hidden_size)

    @property
    def max_tokens(self) -> int:
        """Length that texts are cut to, special tokens and prefix included."""
        assert self.layout.max_tokens is not None
        return self.layout.max_tokens

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def copy(self) -> "Encoder":
        """An encoder with weights of its own; the tokenizer, and so the lock, are shared."""
        return Encoder(
            copy.deepcopy(self.model),
            self._tokenizer,
            self.layout,
            precision=self._precision,
            lock=self._lock,
        )

    def encode_queries(
        self, texts: Sequence[str], *, batch: int = 64, progress: Progress | None = None
    ) -> Vectors:
        """Vectors of queries: (n, dimension) float32, L2-normalised, in the order of ``texts``."""
        metrics.ENCODED.labels("query").inc(len(texts))
        return self._encode([self.layout.query_prefix + t for t in texts], batch, progress)

    def encode_documents(
        self, texts: Sequence[str], *, batch: int = 64, progress: Progress | None = None
    ) -> Vectors:
        """Vectors of documents: (n, dimension) float32, L2-normalised, in the order of ``texts``.

        Equal texts are encoded once.
        """
        metrics.ENCODED.labels("document").inc(len(texts))
        return self._encode([self.layout.document_prefix + t for t in texts], batch, progress)

    def tokens(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of texts that carry their prefix already, cut to ``max_tokens``."""
        longest = min(max_tokens or self.max_tokens, self.max_tokens)
        rows: list[list[int]] = []
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            some = list(texts[start : start + _TOKENIZED_AT_ONCE])
            with self._lock:
                ids = self._tokenizer(some, truncation=True, max_length=longest, padding=False)[
                    "input_ids"
                ]
            rows.extend(ids)
        # A tokenizer without special tokens makes nothing of an empty text.
        return [row or [self._padding] for row in rows]

    def forward(self, rows: Sequence[Sequence[int]], *, model: Any = None) -> Tensor:
        """Vectors of token ids, all in one padded batch; gradients flow if they are enabled.

        Returns:
            (n, dimension) float32, L2-normalised, on the model's device.
        """
        length = padded(max(map(len, rows)), self.max_tokens)
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        model = model or self.model
        states = model(input_ids=ids, attention_mask=mask, **self._options).last_hidden_state
        return pool(states, mask, self.layout.pooling)

    def save(self, path: Path) -> None:
        """Write the model into the folder ``path`` in sentence-transformers format.

        Equal encoders give equal files (safetensors only), hence equal digests.
        """
        path.mkdir(parents=True, exist_ok=True)
        with self._lock, loading.quietly():
            backend = getattr(self._tokenizer, "backend_tokenizer", None)
            if backend is not None:
                backend.no_truncation()
                backend.no_padding()
            self._tokenizer.save_pretrained(path)
            self.model.save_pretrained(path, safe_serialization=True)
        layouts.write(path, self.layout, self.dimension)

    def _encode(self, texts: list[str], batch: int, progress: Progress | None) -> Vectors:
        distinct = list(dict.fromkeys(texts))
        rows = self.tokens(distinct)
        vectors = np.empty((len(distinct), self.dimension), dtype=np.float32)
        done = 0
        with metrics.ENCODING_SECONDS.time():
            lengths = [padded(len(row), self.max_tokens) for row in rows]
            on_cpu = self.device.type == "cpu"
            tokens = on_a_core(sum(lengths), torch.get_num_threads()) if on_cpu else None
            for indices, part in self._batches(rows, list(alike(lengths, batch, tokens))):
                vectors[indices] = part
                done += len(indices)
                if progress is not None:
                    progress(done * len(texts) // len(distinct), len(texts))
        position = {text: index for index, text in enumerate(distinct)}
        return vectors[[position[text] for text in texts]]

    def _batches(
        self, rows: Sequence[Sequence[int]], batches: list[list[int]]
    ) -> Iterator[tuple[list[int], Vectors]]:
        """Vectors of each batch, which is indices of ``rows``."""
        if self._a_core_each(len(batches)):
            with self._lock:
                self._fast_model()
            too_large = []
            for indices, part in side_by_side(
                lambda indices: self._forward_unless_full([rows[i] for i in indices]), batches
            ):
                if part is None:
                    too_large.append(indices)
                else:
                    yield indices, part
            batches = too_large
        for indices in batches:
            yield indices, self._in_memory([rows[i] for i in indices])

    def _a_core_each(self, batches: int) -> bool:
        cores = torch.get_num_threads()
        return self.device.type == "cpu" and 1 < cores <= batches and not self._memory_ended

    def _in_memory(self, rows: Sequence[Sequence[int]]) -> Vectors:
        """Vectors of rows of one padded length, in smaller batches where memory ends.

        Raises:
            RestartRequiredError: one row alone does not fit.
        """
        length = padded(max(map(len, rows)), self.max_tokens)
        parts: list[Vectors] = []
        start = 0
        while start < len(rows):
            size = len(rows) - start
            if self._fitting_tokens is not None:
                size = min(size, max(1, self._fitting_tokens // length))
            with self._lock:
                part = self._forward_unless_full(rows[start : start + size])
            if part is not None:
                parts.append(part)
                start += size
                continue
            self._forget_unused_memory()
            if size == 1:
                raise RestartRequiredError(
                    f"Memory does not suffice to encode one text of {length} tokens on "
                    f"{self.device}. Leave it more (other processes, a smaller model), or set "
                    "RETRAIL_INDEX_MAX_TOKENS lower for a first model."
                )
            self._fitting_tokens = size // 2 * length
            log.warning("out of memory, encoding fewer texts at once", texts=size // 2)
        return np.concatenate(parts)

    def _forward_unless_full(self, rows: Sequence[Sequence[int]]) -> Vectors | None:
        """``None``: out of memory. The exception, which keeps tensors alive, ends here."""
        try:
            with torch.inference_mode():
                encoded: Vectors = self.forward(rows, model=self._fast_model()).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._memory_ended = True
            return None
        return encoded

    def _forget_unused_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fast_model(self) -> Any:
        dtype = _dtype_of(self._precision, self.device)
        if dtype == torch.float32:
            return self.model
        if self._working_copy is None:
            self._working_copy = copy.deepcopy(self.model).to(dtype).eval()
            if self.device.type == "cpu":
                # Takes seconds to import, and transformers has been by now.
                from trainer.model import attention

                pack(self._working_copy)
                attention.for_encoding(self._working_copy)
        return self._working_copy

    @property
    def _padding(self) -> int:
        for token in (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; on a CPU torch says so in words alone.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
    True
    """
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)


def _dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
