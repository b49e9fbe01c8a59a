"""A simulation of the whole loop: a corpus, scripted agents that search it, and the demo."""
