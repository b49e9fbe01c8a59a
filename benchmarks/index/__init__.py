"""How fast documents become searchable, and searches are: ``python -m benchmarks.index --help``."""
