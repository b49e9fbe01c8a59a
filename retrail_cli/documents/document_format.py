"""Formats of documents; apart from what reads them, so that help comes without it."""

from enum import StrEnum


class Format(StrEnum):
    """How documents lie in files."""

    auto = "auto"
    jsonl = "jsonl"
    beir = "beir"
    parquet = "parquet"
    text = "text"
