"""How many examples a property is tried on."""

import os


def examples(usual: int) -> int:
    """``PROPERTY_EXAMPLES`` if it is set, for a long run by hand, else the ``usual`` number."""
    return int(os.environ.get("PROPERTY_EXAMPLES", usual))
