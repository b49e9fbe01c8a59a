"""Everything that can be set, from ``RETRAIL_…`` variables or a ``.env`` file.

May import the rest of ``schemas``.
"""

from schemas.settings.groups import OutcomePolicy, PresetName, Share, TrainSettings
from schemas.settings.loading import Settings, load, mistakes, secret_fields, stopped_stack

__all__ = [
    "OutcomePolicy",
    "PresetName",
    "Settings",
    "Share",
    "TrainSettings",
    "load",
    "mistakes",
    "secret_fields",
    "stopped_stack",
]
