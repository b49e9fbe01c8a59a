"""``python -m retrail_cli`` is ``retrail``."""

import sys

from retrail_cli import main

if __name__ == "__main__":
    sys.exit(main())
