"""Options of the command line that several commands share, and how their numbers are parsed.

Knows argparse; not what a command does.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import TypeAlias

from fgtools.profiles import RECIPES
from fgtools.rows.formats import SHAPES

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds its parser."""


def parse_count(text: str) -> int:
    """Parse a whole number of at least 0."""
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def parse_amount(text: str) -> float:
    """Parse a finite number of at least 0."""
    number = parse_finite(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text!r}")
    return number


def parse_finite(text: str) -> float:
    """Parse a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return number


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where rows come from and how they are split."""
    parser.add_argument("--data", required=True, help="as for run")
    parser.add_argument(
        "--shape", choices=["auto", *SHAPES], default="auto", help="shape of the rows (default: a guess)"
    )
    parser.add_argument("--split", default="train", help="split of a hub data set (default: %(default)s)")
    parser.add_argument("--config", default="", help="configuration of a hub data set")
    parser.add_argument("--revision", default="", help="commit, tag or branch of a hub data set")
    parser.add_argument("--recipe", choices=[*RECIPES], default="native")
    parser.add_argument("--n-total", type=parse_count, default=None, help="raw rows to take (default: all)")
    parser.add_argument("--n-eval", type=parse_count, default=300, help="evaluation rows (default: %(default)s)")
    parser.add_argument("--seed", type=parse_count, default=40)
    parser.add_argument(
        "--no-call-share", type=parse_finite, default=-1.0, help="of the training rows (default: the recipe's)"
    )
    parser.add_argument("--benchmark", default="", metavar="FILE", help="questions that must not be trained on")
    parser.add_argument("--processes", type=parse_count, default=0, help="that read rows (default: one a core)")
