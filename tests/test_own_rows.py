"""Rows of own tools: balanced nested sets, no wording of the evaluation in training, calls that fit their tools."""

import re
from collections import Counter

import pytest

from benchmarks.own_rows import EVAL_BLOCK, SEED, SIZES, build_own_rows, write_value
from benchmarks.own_wordings import EVAL_NO_CALL, EVAL_PATTERNS, NEW_VALUES, TRAIN_NO_CALL, TRAIN_PATTERNS, TRAIN_VALUES
from fgtools.calls import row_calls
from fgtools.files import InputError
from fgtools.metrics import has_valid_arguments
from fgtools.metrics.texts import normalize_request
from fgtools.rows import RawRows, prepare
from fgtools.rows.duplicates import THRESHOLD, compute_similarity

OWN = build_own_rows()


def flatten(patterns):
    return [pattern for groups in patterns.values() for group in groups for pattern in group]


def test_every_row_is_kept_and_every_call_fits_its_tool():
    for n_train in SIZES:
        prepared = prepare(RawRows(OWN.take(n_train), n_train + 60, "own rows"), "native", 60, SEED)
        assert prepared.to_funnel()["funnel"] == {"kept": n_train + 60}
        assert prepared.to_funnel()["problems"] == {}
        assert (len(prepared.train), len(prepared.splits.eval)) == (n_train, 60)
        assert prepared.splits.near_across == 0 and prepared.splits.near_within <= 5
    for row in (*prepared.train, *prepared.splits.eval):
        parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
        assert has_valid_arguments(row_calls(row), parameters)
        assert row["gold"] or 0 < len(row["reply"]) < 80
        assert not any("{" in message["content"] for message in row["messages"])


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_smaller_sets_begin_the_larger_ones_and_have_as_many_rows_of_each_tool(seed):
    own = build_own_rows(seed)
    assert own == build_own_rows(seed) and (own != OWN) == (seed != SEED)
    for n_train in SIZES:
        counts = Counter(row["scenario"] for row in own.take(n_train) if row["split"] == "train")
        without = counts.pop("no call")
        assert len(set(counts.values())) == 1 and 3 * counts["set_light"] + without == n_train
        assert 0.1 <= without / n_train <= 0.13
    assert Counter(row["scenario"] for row in own.eval)["set_alarm"] == EVAL_BLOCK[0]
    assert len({row["row_id"] for row in own.take(300)}) == 360


def test_more_rows_than_there_are_cannot_be_taken():
    with pytest.raises(InputError, match=r"n_train must lie in \[1, 300\], got 301"):
        OWN.take(301)


def test_no_request_and_no_wording_of_the_evaluation_is_in_training():
    requests = [normalize_request(row["request"]) for row in OWN.take(300)]
    assert len(set(requests)) == 360
    train, held_out = flatten(TRAIN_PATTERNS), flatten(EVAL_PATTERNS)
    for tool, (at_least, at_least_eval) in dict.fromkeys(TRAIN_PATTERNS, (40, 15)).items():
        assert len({one.text for one in train if one.tool == tool}) >= at_least
        assert len({one.text for one in held_out if one.tool == tool}) >= at_least_eval
    known = [one.text for one in train] + [text for text, _ in TRAIN_NO_CALL]
    new = [one.text for one in held_out] + [text for text, _ in EVAL_NO_CALL]
    assert len(set(known)) == len(known) and len(set(new)) == len(new)
    for text in new:
        closest = max(known, key=lambda one: compute_similarity(_bare(one), _bare(text)))
        assert compute_similarity(_bare(closest), _bare(text)) < THRESHOLD, f"{text!r} is nearly {closest!r}"


def test_eight_evaluation_rows_of_each_tool_have_values_that_no_training_row_has():
    assert all(set(TRAIN_VALUES[slot]).isdisjoint(NEW_VALUES[slot]) for slot in TRAIN_VALUES)
    said = {value for row in OWN.train for value in re.findall(r'(?:time|snooze|room)="?([\w: ]+)', row["call"])}
    new = Counter()
    for row in OWN.eval:
        values = re.findall(r'(?:time|snooze|room)="?([\w: ]+)', row["call"])
        new[row["scenario"]] += bool(values) and said.isdisjoint(values)
    assert all(new[tool] == 8 for tool in TRAIN_PATTERNS)


def test_values_are_written_as_people_write_them():
    def forms(value):
        return {write_value(value, _Pick(place)) for place in range(6)}

    assert forms("06:30") == {"06:30", "6:30", "6:30 am", "6:30am", "half past six"}
    assert forms("07:00") == {"07:00", "7:00", "7 am", "7am", "seven", "7"}
    assert forms("20:45") == {"20:45", "8:45 pm", "8:45pm", "quarter to nine pm"}
    assert "ten to one pm" in forms("12:50")
    assert forms(10) == {"10", "ten"} and forms(25) == {"25"} and forms("living room") == {"living room"}


def _bare(text):
    return normalize_request(re.sub(r"\{\w+\}", "_", text))


class _Pick:
    """Chooses the item at one place, counted round and round."""

    def __init__(self, place):
        self.place = place

    def choice(self, items):
        return items[self.place % len(items)]
