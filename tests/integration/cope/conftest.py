"""Makes the tiny hub models of the unit tests importable for the tests below."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "cope"))
