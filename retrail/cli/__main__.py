"""``python -m retrail.cli`` is ``retrail``."""

import sys

from retrail.cli import main

if __name__ == "__main__":
    sys.exit(main())
