"""Train: encoded rows and TRL's SFTConfig in; tuned weights and a record of the training out.

Knows torch, transformers' and TRL's trainer; not profiles of places, run folders or notebooks.
"""

from fgtools.train.arguments import (
    TrainingError,
    describe_arguments,
    describe_steps,
    fit_steps,
    parse_arguments,
    summarize_arguments,
    training_arguments,
)
from fgtools.train.checkpoints import remove_checkpoints
from fgtools.train.choice import Choice, choose_checkpoint
from fgtools.train.trainer import build_trainer
from fgtools.train.training import TrainResult, describe_training, train

__all__ = [
    "Choice",
    "TrainResult",
    "TrainingError",
    "build_trainer",
    "choose_checkpoint",
    "deadline",
    "describe_arguments",
    "describe_steps",
    "describe_training",
    "fit_steps",
    "parse_arguments",
    "remove_checkpoints",
    "summarize_arguments",
    "train",
    "training_arguments",
]
