"""How fast the stream workers are: ``python -m benchmarks.streams --help``."""
