"""What each part of the signal is worth: ``python -m benchmarks.ablation --help``."""
