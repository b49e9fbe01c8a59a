"""``python -m retrail`` is ``retrail``; torchrun starts it so."""

import sys

from retrail.cli import main

if __name__ == "__main__":
    sys.exit(main())
