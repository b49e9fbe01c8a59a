"""Search: the live index, and the model that built it."""
