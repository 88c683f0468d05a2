"""Train: encoded rows and the numbers of a training in, tuned weights and the history of the loss out.

Knows torch, transformers' and TRL's trainer; not profiles, run folders or notebooks.
"""

from fgtools.train.training import TrainingError, TrainResult, train

__all__ = [
    "TrainResult",
    "TrainingError",
    "memory",
    "plan",
    "train",
    "training",
]
