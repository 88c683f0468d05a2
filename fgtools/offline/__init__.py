"""The offline default: generated rows and a small stand-in model, so that the series runs without network or GPU.

Knows `calls` and `profiles` alone; only `rows.sources` and `models` import it. Its figures say nothing about
FunctionGemma.
"""

from importlib import resources
from pathlib import Path

CHECKPOINT = Path(str(resources.files("fgtools.offline"))) / "checkpoint"
"""The shipped stand-in: weights, tokenizer with chat template, and what they were made from."""
