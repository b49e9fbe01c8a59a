"""``python -m retrail_cli`` is ``retrail``."""

from retrail_cli import command

if __name__ == "__main__":
    command()
