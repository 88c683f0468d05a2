"""The command line's words: where to begin, numbers and names as options take them, errors that say what to type.

Knows argparse and the names of the notebooks' parameters; not what an option means to a command.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from fgtools.run.parameters import list_all_parameters

GUIDE = """\
fgtools fine-tunes FunctionGemma, so that it turns requests into calls of your own tools.

A first look, offline, in a few minutes on two CPU cores (a toy model on made-up rows):
  python -m fgtools run

Your own tools: a sheet to write requests into, what would be lost, the training, one request:
  python -m fgtools draft --tools tools.py --out examples.csv
  python -m fgtools audit --data examples.csv --tools tools.py --model standin
  python -m fgtools run --data examples.csv --tools tools.py --model google/functiongemma-270m-it --out runs/mine
  python -m fgtools call --model runs/mine/model "wake me at 07:15 every day"

Step by step: prepare, audit, train, evaluate, score. To use and pass on: check, call, export, publish, kaggle.
`python -m fgtools --help` says what each does, `python -m fgtools COMMAND --help` which options it has."""
"""What is printed where no command is named: where to begin."""

_CHOICES = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


def parse_count(text: str) -> int:
    """Return a whole number of at least 0."""
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def parse_positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not re.fullmatch(r"[0-9]+", text) or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def parse_finite(text: str) -> float:
    """Return a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return number


def parse_amount(text: str) -> float:
    """Return a finite number of at least 0."""
    number = parse_finite(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text!r}")
    return number


def parse_share(text: str) -> float:
    """Return a share above 0 and at most 1."""
    number = parse_finite(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be a share above 0 and at most 1, such as 0.9, got {text!r}")
    return number


def parse_limit(text: str) -> float:
    """Return a share of at most 1; below 0 it stands for a default."""
    number = parse_finite(text)
    if number > 1:
        raise argparse.ArgumentTypeError(
            f"must be a share of at most 1, such as 0.3 for 30 % (below 0: the recipe's), got {text!r}"
        )
    return number


def parse_name(text: str) -> str:
    """Return a part of a file's name: letters, digits, dots, lines and underscores, and no folder."""
    if not re.fullmatch(r"(\w[\w.-]*)?", text):
        raise argparse.ArgumentTypeError(
            f"must be a part of a file's name, such as base, without folders, got {text!r}: --out says which folder"
        )
    return text


class CommandParser(argparse.ArgumentParser):
    """A parser whose error is one message and a hint, in place of the list of all options."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, which word may have been meant and where the options are listed; exit with status 2."""
        if found := _CHOICES.search(message):
            near = difflib.get_close_matches(found[1], re.findall(r"[^', ]+", found[2]), 1)
            message += f": did you mean {near[0]!r}?" if near else ""
        self.exit(2, f"error: {message}\n`{self.prog} --help` lists what there is\n")


def find_empty_word(words: Sequence[str]) -> str:
    """Return the first option whose value is empty, such as `--data ""`; "" for none."""
    for option, value in zip(words, [*words[1:], "."], strict=True):
        name, equals, given = option.partition("=")
        if name.startswith("--") and ((equals and not given) or (not equals and not value)):
            return name
    return ""


def describe_unknown(rest: Sequence[str], known: Sequence[str], parameters: Sequence[str] = ()) -> str:
    """Return what to say of words that a command does not take.

    Args:
        rest: The words.
        known: Names of the command's options.
        parameters: Names of parameters that the option -p sets.

    Returns:
        A sentence: the first word, and what may have been meant.
    """
    word = next((one for one in rest if one.startswith("-")), rest[0])
    name = word.partition("=")[0]
    parameter = name.lstrip("-").upper().replace("-", "_")
    near = difflib.get_close_matches(name, known, 1)
    if parameter in parameters:
        return f"{name} is no option of this command: set the notebooks' parameter with -p {parameter} VALUE"
    if near:
        return f"{name} is no option of this command: did you mean {near[0]}?"
    what = "is no option of this command" if word.startswith("-") else "is one word too many: quote what has spaces"
    return f"{word!r} {what}"


def parse_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Return the options that words give; words that make no sense end the process with a message and status 2."""
    options, rest = parser.parse_known_args(words)
    chosen = _find_parser(parser, words)
    if option := find_empty_word(words):
        chosen.error(f"argument {option}: must not be empty, got '': leave it out, or look where its value comes from")
    if rest:
        known = [name for action in chosen._actions for name in action.option_strings]
        chosen.error(describe_unknown(rest, known, list_all_parameters() if "-p" in known else ()))
    return options


def _find_parser(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that words name, or of its action; `parser` where they name none."""
    for action in parser._actions:
        choices: Any = action.choices
        if isinstance(action, argparse._SubParsersAction):
            place = next((place for place, word in enumerate(words) if word in choices), None)
            return parser if place is None else _find_parser(choices[words[place]], words[place + 1 :])
    return parser
