"""Whether the whole system learns, beside the truth: ``python -m benchmarks.learning --help``."""
