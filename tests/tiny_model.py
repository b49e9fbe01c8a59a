"""Models of a few thousand random weights, so that encoding and training take milliseconds."""

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
)


def draw_weights(model: nn.Module, seed: int) -> None:
    """Draw all weights, whatever other threads draw or load meanwhile.

    ``torch.manual_seed`` seeds a generator that all threads share, and ``from_pretrained`` switches
    initialisation off for all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1:
                weights.normal_(0.0, 0.02, generator=generator)
            else:
                weights.fill_(0.0 if name.endswith("bias") else 1.0)


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a two-layer BERT with a tokenizer of letters into ``folder``; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *marks]
    vocabulary += [f"##{mark}" for mark in marks]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        ),
        add_pooling_layer=False,
    )
    draw_weights(model, seed)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tiny_qwen3(folder: Path) -> Path:
    """Write a two-layer Qwen3 with a tokenizer of bytes into ``folder``; returns ``folder``.

    As in Qwen3-Embedding, the tokenizer pads with ``<|endoftext|>`` and puts one at the end of each
    text; there is no sentence-transformers file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marks = ["<|endoftext|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({mark: index for index, mark in enumerate(marks)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    model = Qwen3Model(
        Qwen3Config(
            vocab_size=len(marks),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=256,
        )
    )
    draw_weights(model, 0)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)
    return folder
