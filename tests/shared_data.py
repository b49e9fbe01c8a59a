"""Real data beside a checkout, never in it. Tests that need it are skipped without it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
LRAT = SHARED / "trajectories" / "lrat"
MEDQUAD = SHARED / "medquad"

needs_lrat = pytest.mark.skipif(
    not LRAT.is_dir(), reason="needs the real LRAT trajectories in ../shared/data/trajectories/lrat"
)
needs_medquad = pytest.mark.skipif(
    not MEDQUAD.is_dir(), reason="needs the MedQuAD collection in ../shared/data/medquad"
)
