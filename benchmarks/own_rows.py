"""Rows of three own tools, by which to measure how much 30, 100 and 300 of them buy.

`python -m benchmarks.own_rows --out FOLDER [--seed N]`

The tools are those of docs/own_tools.md with shorter schemas and without the list of days. The wordings are written by
hand (`own_wordings`), and no wording of the evaluation rows is one of the training rows: most have other verbs and
other forms of sentence. Of the 17 evaluation rows of each tool, 8 have values (times, rooms, minutes) that no training
row has. About one row in eight is a request that no tool serves, with a short answer in words.

Written are own_rows.30.jsonl, own_rows.100.jsonl and own_rows.300.jsonl: so many training rows, and the same 60
evaluation rows in each. Each row names its side. A smaller set is the beginning of the larger ones, and no tool has
more rows than another. What `prepare` makes of each set is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.own_wordings import (
    EVAL_NO_CALL,
    EVAL_PATTERNS,
    NEW_VALUES,
    TRAIN_NO_CALL,
    TRAIN_PATTERNS,
    TRAIN_VALUES,
    Pattern,
)
from fgtools.files import InputError, write_jsonl
from fgtools.metrics.texts import normalize_request
from fgtools.rows import RawRows, prepare
from fgtools.rows.preparation import describe_sums
from fgtools.schema import parse_functions

SEED = 40
SIZES = (30, 100, 300)

TRAIN_BLOCKS = ((9, 3), (20, 10), (59, 23))
"""Rows of each tool, and rows without a call, that each of SIZES adds: 3 * 9 + 3 = 30, 3 * 20 + 10 = 70 more, ..."""

EVAL_BLOCK = (17, 9)

TYPOS, LOWER = 0.12, 0.3
"""Shares of requests with two letters of a word exchanged, and in lower case without a full stop."""

_SLOT = re.compile(r"\{(\w+)\}")
_LONG_WORD = re.compile(r"(?<![{\w])[A-Za-z]{5,}(?![}\w])")
_ARGUMENTS = {"time": "time", "minutes": "snooze", "room": "room"}
_NUMBERS = (
    *("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_PARTS = {15: "quarter", 30: "half"}


def set_alarm(time: str, snooze: int | None = None) -> None:
    """Set an alarm.

    Args:
        time: Such as "07:00".
        snooze: Minutes.
    """


def stop_alarm(time: str) -> None:
    """Stop an alarm.

    Args:
        time: Such as "07:00".
    """


def set_light(room: str, state: Literal["on", "off"]) -> None:
    """Switch a light."""


@dataclass(frozen=True)
class OwnRows:
    """Raw rows of own tools, each with request, call, reply, tools, row_id, source, scenario and split.

    Attributes:
        train: 300 training rows; the first 30 and the first 100 are smaller sets with the same share of each tool.
        eval: 60 evaluation rows in other wordings.
    """

    train: tuple[dict[str, Any], ...]
    eval: tuple[dict[str, Any], ...]

    def take(self, n_train: int) -> list[dict[str, Any]]:
        """Return the first training rows and all evaluation rows.

        Args:
            n_train: Training rows wanted, from 1 to 300; one of SIZES for sets with the same share of each tool.

        Returns:
            The rows, those of training first.

        Raises:
            InputError: There are not so many training rows.
        """
        if not 1 <= n_train <= len(self.train):
            raise InputError(f"n_train must lie in [1, {len(self.train)}], got {n_train}")
        return [*self.train[:n_train], *self.eval]


def build_own_rows(seed: int = SEED) -> OwnRows:
    """Build the training and evaluation rows.

    Args:
        seed: Seed of every draw: wordings, values, typing errors and order.

    Returns:
        The same OwnRows for the same seed; no request occurs twice, letter case and white space aside.
    """
    draw = random.Random(seed)
    tools = [dict(tool) for tool in parse_functions([set_alarm, stop_alarm, set_light]).tools]
    used: set[str] = set()
    train = _build_side("train", TRAIN_PATTERNS, TRAIN_NO_CALL, TRAIN_BLOCKS, tools, used, draw)
    held_out = _build_side("eval", EVAL_PATTERNS, EVAL_NO_CALL, (EVAL_BLOCK,), tools, used, draw)
    return OwnRows(tuple(train), tuple(held_out))


def _build_side(
    side: str,
    patterns: Mapping[str, Sequence[Sequence[Pattern]]],
    no_calls: Sequence[tuple[str, str]],
    blocks: Sequence[tuple[int, int]],
    tools: list[dict[str, Any]],
    used: set[str],
    draw: random.Random,
) -> list[dict[str, Any]]:
    """Return the rows of one side, block by block, each block shuffled; `used` gets their requests."""
    decks = {tool: itertools.cycle(_mix_groups(groups, draw)) for tool, groups in patterns.items()}
    others = iter(draw.sample(no_calls, len(no_calls)))
    common = {"tools": tools, "source": "own_rows", "split": side}
    rows: list[dict[str, Any]] = []
    for n_calls, n_others in blocks:
        block = []
        for tool, deck in decks.items():
            n_new = n_calls // 2 if side == "eval" else 0
            values = [NEW_VALUES] * n_new + [TRAIN_VALUES] * (n_calls - n_new)
            draw.shuffle(values)
            for pattern, known in zip(itertools.islice(deck, n_calls), values, strict=True):
                request, call = _build_request(pattern, known, used, draw)
                block.append({"request": request, "call": call, "reply": "", "scenario": tool, **common})
        for text, reply in itertools.islice(others, n_others):
            request = _restyle(text, draw)
            used.add(normalize_request(request))
            block.append({"request": request, "call": "", "reply": reply, "scenario": "no call", **common})
        draw.shuffle(block)
        rows += block
    return [{"row_id": f"{side}/{place}", **row} for place, row in enumerate(rows)]


def _mix_groups(groups: Sequence[Sequence[Pattern]], draw: random.Random) -> list[Pattern]:
    """Return the patterns of all groups, each group in a drawn order and spread evenly over the whole."""
    placed = [
        ((place + 0.5) / len(group), number, pattern)
        for number, group in enumerate(groups)
        for place, pattern in enumerate(draw.sample(group, len(group)))
    ]
    return [pattern for _, _, pattern in sorted(placed, key=lambda one: one[:2])]


def _build_request(
    pattern: Pattern, values: Mapping[str, Sequence[str | int]], used: set[str], draw: random.Random
) -> tuple[str, str]:
    """Return a request that is not among `used`, to which it is added, and the call that answers it."""
    while True:
        chosen = {slot: draw.choice(values[slot]) for slot in _SLOT.findall(pattern.text)}
        said = {slot: write_value(value, draw) for slot, value in chosen.items()}
        request = _restyle(pattern.text, draw, said)
        if normalize_request(request) not in used:
            break
    used.add(normalize_request(request))
    arguments = {_ARGUMENTS[slot]: chosen[slot] for slot in _ARGUMENTS if slot in chosen}
    if pattern.state:
        arguments["state"] = pattern.state
    inside = ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
    return request, f"{pattern.tool}({inside})"


def _restyle(text: str, draw: random.Random, said: Mapping[str, str] | None = None) -> str:
    """Return a sentence with its values, as it is, with a typing error outside of them, or in lower case."""
    style = draw.random()
    words = list(_LONG_WORD.finditer(text))
    if style < TYPOS and words:
        word = draw.choice(words)
        place = draw.randrange(word.start() + 1, word.end() - 1)
        text = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    text = text.format(**(said or {}))
    return text.lower().rstrip(".") if TYPOS <= style < TYPOS + LOWER else text


def write_value(value: str | int, draw: random.Random) -> str:
    """Return a value as people write it, in a drawn form: "07:00" as "7 am" or "seven", 10 as "ten", a room as it is.

    A time without am or pm that is not written as 24-hour time is one before noon; times begin at 01:00.
    """
    if isinstance(value, int):
        return draw.choice([str(value), *_NUMBERS[value : value + 1]])
    if not re.fullmatch(r"\d\d:\d\d", value):
        return value
    hour, minute = int(value[:2]), int(value[3:])
    half = (hour - 1) % 12 + 1
    mark = "am" if hour < 12 else "pm"
    short = f"{half}" if not minute else f"{half}:{minute:02d}"
    spoken = _speak_time(half, minute)
    forms = [value, f"{hour}:{minute:02d}", f"{short} {mark}", f"{short}{mark}"]
    return draw.choice([*forms, spoken, short] if hour < 12 else [*forms, f"{spoken} {mark}"])


def _speak_time(half: int, minute: int) -> str:
    """Return a time of a twelve-hour clock in words: "half past six"."""
    if minute == 0:
        return _NUMBERS[half]
    hour, minutes, side = (half, minute, "past") if minute <= 30 else (half % 12 + 1, 60 - minute, "to")
    return f"{_PARTS.get(minutes) or _NUMBERS[minutes]} {side} {_NUMBERS[hour]}"


def describe_set(own: OwnRows, n_train: int) -> Iterator[str]:
    """Yield lines about what `prepare` makes of a set: how the rows add up, the sides, the near duplicates."""
    prepared = prepare(RawRows(own.take(n_train), n_train + len(own.eval), "own rows"), "native", len(own.eval), SEED)
    funnel = prepared.to_funnel()
    yield f"{n_train} training rows and {len(own.eval)} for evaluation"
    yield from describe_sums(funnel).splitlines()
    yield from prepared.describe().splitlines()
    counts = funnel["split"]
    yield f"near duplicates: {counts['near_within']} within a side, {counts['near_across']} across"


def main() -> None:
    """Write the sets and print what they hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    own = build_own_rows(options.seed)
    for n_train in SIZES:
        path = write_jsonl(options.out / f"own_rows.{n_train}.jsonl", own.take(n_train))
        print(path, *describe_set(own, n_train), sep="\n  ")


if __name__ == "__main__":
    main()
