"""What commands and settings choose from; imports nothing heavy, so that help comes at once."""

from typing import Literal

JudgeName = Literal["local", "llm", "none"]
ProfileName = Literal["reference", "paper"]

SearchMode = Literal["dense", "hybrid"]
"""By vectors alone, or by vectors and BM25, fused by reciprocal ranks."""

DocumentFormat = Literal["auto", "jsonl", "beir", "parquet", "text"]
"""Documents in files."""
