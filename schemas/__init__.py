"""The contracts of Retrail: records on topics, settings, errors. Imports no other package of ours.

This file holds the names that commands and contracts share. It imports nothing heavy, so that
``retrail --help`` answers at once.
"""

from typing import Literal

JudgeName = Literal["local", "llm", "none"]
ProfileName = Literal["reference", "paper"]

SearchMode = Literal["dense", "hybrid"]
"""By vectors alone, or by vectors and BM25, fused by reciprocal ranks."""

DocumentFormat = Literal["auto", "jsonl", "beir", "parquet", "text"]
"""Documents in files."""
