"""The flywheel on a small scale: a corpus, scripted agents over it, and what they teach."""
