"""The embedded demo model: a small checkpoint in the published Qwen3 layout, and what trained it."""

from pathlib import Path
from typing import Final

CHECKPOINT_DIR: Final = Path(__file__).parent / "checkpoint"
