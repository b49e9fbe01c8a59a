"""What grows with documents and pairs: ``python -m benchmarks.growth --help``."""
