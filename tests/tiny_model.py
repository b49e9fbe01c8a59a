"""A BERT of a few thousand random weights, so that encoding and training take milliseconds."""

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast


def write_tiny_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a two-layer BERT with a tokenizer of letters into ``folder``; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *marks]
    vocabulary += [f"##{mark}" for mark in marks]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    torch.manual_seed(seed)
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
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)
    return folder
