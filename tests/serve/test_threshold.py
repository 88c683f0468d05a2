"""Unsure answers: those below the threshold are marked, in batches too, and none is where there is no threshold."""

import json
import math

import pytest

from fgtools.__main__ import main
from fgtools.files import InputError
from fgtools.metrics import Confidence
from fgtools.metrics.confidence import MEASURES
from fgtools.serve import load_caller
from tests.toys import MEAL_TOOLS as TOOLS

REQUESTS = [
    "note that i ate spring rolls of 892 calories",
    "log a meal: rice, 400 calories",
    "how tall is the moon in winter?",
    "i had soup, 120 calories, please write it down",
]


@pytest.fixture(scope="module")
def answers(model, tokenizer):
    return load_caller(model, TOOLS, tokenizer=tokenizer, quiet=True).call_many(REQUESTS)


def load(model, tokenizer, threshold):
    return load_caller(model, TOOLS, tokenizer=tokenizer, quiet=True, threshold=threshold)


def test_without_a_threshold_every_answer_has_its_confidence_and_none_is_unsure(answers):
    assert all(one.confidence.is_known and one.confidence.total < 0 and not one.unsure for one in answers)
    assert len({one.confidence.total for one in answers}) > 1 and MEASURES[0] == "total"


def test_answers_below_the_threshold_are_unsure_in_a_batch_and_one_by_one(model, tokenizer, answers):
    """The threshold is the confidence of one of them, a little lower: other batches differ behind the fourth digit."""
    middle = sorted(one.confidence.total for one in answers)[2] - 0.001
    caller = load(model, tokenizer, middle)
    together = caller.call_many(REQUESTS)
    assert [one.unsure for one in together] == [one.confidence.total < middle for one in answers]
    assert {one.unsure for one in together} == {True, False}
    assert [caller.call(one).unsure for one in REQUESTS] == [one.unsure for one in together]
    assert [one.calls for one in together] == [one.calls for one in answers]  # marked, not changed


def test_the_answer_to_a_result_is_judged_as_well(model, tokenizer, answers):
    (first, *_) = (request for request, one in zip(REQUESTS, answers, strict=True) if one.kind == "call")
    caller = load(model, tokenizer, 0)
    answer = caller.call(first)
    again = caller.respond(answer.calls[0], {"status": "ok"})
    assert answer.unsure and again.unsure and again.confidence.is_known


def test_text_of_unknown_confidence_is_unsure_where_there_is_a_threshold(model, tokenizer):
    text = "Sure.<end_of_turn>"
    caller = load(model, tokenizer, -1.0)
    assert caller.parse(text).unsure and not load(model, tokenizer, None).parse(text).unsure
    assert not caller.parse(text, Confidence(4, -0.25, -0.25)).unsure  # a threshold is met by its own value
    assert caller.parse(text, Confidence(5, -0.25, -0.25)).unsure


@pytest.mark.parametrize("threshold", [0.9, -math.inf, math.nan])
def test_a_threshold_that_is_no_log_probability_is_refused(model, tokenizer, threshold):
    with pytest.raises(InputError, match="threshold must be a log-probability of at most 0, got"):
        load(model, tokenizer, threshold)


def test_the_command_prints_how_sure_the_model_was(model, tokenizer, answers, tmp_path, capsys):
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    words = ["call", REQUESTS[0], "--model", "standin", "--tools", str(tmp_path / "tools.json")]
    assert main([*words, "--threshold=-999"]) == 0
    assert f"confidence: {answers[0].confidence.total:.3g} (sum of" in capsys.readouterr().out
    assert main([*words, "--threshold=-1e-9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["unsure"] and told["confidence"]["total"] == pytest.approx(answers[0].confidence.total, abs=1e-3)
    assert main([*words, "--threshold=-1e-9"]) == 0
    assert "below the threshold: unsure, pass the request on" in capsys.readouterr().out
    assert main([*words, "--threshold=0.9"]) == 1
    assert "threshold must be a log-probability of at most 0, got 0.9" in capsys.readouterr().err
