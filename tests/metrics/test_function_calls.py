"""The metric of the library evaluate: it loads from the package without a network, and agrees with `score`."""

import json
import socket

import evaluate
import pytest

from fgtools.calls import render_calls, row_calls
from fgtools.calls.tokens import END_CALL, START_CALL
from fgtools.metrics import FUNCTION_CALLS, score
from tests.toys import small_rows

METRIC = str(FUNCTION_CALLS)
ROWS = small_rows(300, 40)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def metric(cache):
    return evaluate.load(METRIC, cache_dir=cache)


def spoil(row, number):
    calls = row_calls(row)
    reply = render_calls(calls)
    replies = (reply, reply.replace(END_CALL, ""), "Rather not.", reply + reply, f"{START_CALL}call:x{{}}")
    return replies[number % len(replies)]


def test_it_says_what_score_says(metric):
    replies = [spoil(row, number) for number, row in enumerate(ROWS)]
    values = metric.compute(predictions=replies, references=[json.dumps(row) for row in ROWS])
    scores = score(ROWS, replies)
    assert any(not row["gold"] for row in ROWS) and 0 < scores.ast_match.k < len(ROWS)
    for name in ("in_grammar", "known_tool", "right_tools", "ast_match", "exact_match", "strict_match", "false_calls"):
        share = getattr(scores, name)
        assert (values[f"{name}_k"], values[f"{name}_n"], values[name]) == (share.k, share.n, share.rate)
        assert (values[f"{name}_low"], values[f"{name}_high"]) == share.interval
    assert (values["cer"], values["cer_edits"]) == (scores.cer.rate, scores.cer.edits)
    assert (values["errors"], values["n"]) == (scores.errors, len(ROWS))


def test_it_loads_without_a_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert evaluate.load(METRIC, cache_dir=str(tmp_path)).name == "function_calls"


def test_replies_come_in_batches_and_a_reference_needs_tools_and_gold_alone(metric):
    rows = [row for row in ROWS if row["gold"]][:4]
    for row in rows:
        reference = json.dumps({"tools": row["tools"], "gold": row["gold"]})
        metric.add(prediction=render_calls(row_calls(row)), reference=reference)
    values = metric.compute()
    assert (values["exact_match"], values["exact_match_n"], values["false_calls"]) == (1.0, 4, None)


def test_half_a_character_in_a_reply_is_a_failure_of_its_row(metric):
    rows = [row for row in ROWS if row["gold"]][:2]
    replies = ["\ud800", render_calls(row_calls(rows[1]))]
    references = [json.dumps(row) for row in rows]
    together = metric.compute(predictions=replies, references=references)
    for text, reference in zip(replies, references, strict=True):
        metric.add(prediction=text, reference=reference)
    for values in (together, metric.compute()):
        assert (values["exact_match_k"], values["exact_match_n"], values["errors"]) == (1, 2, {"missed_call": 1})


def test_the_tutorials_notation_is_a_configuration(cache):
    rows = [row for row in ROWS if row["gold"]][:4]
    replies = [render_calls(row_calls(row), "tutorial") for row in rows]
    references = [json.dumps(row) for row in rows]
    tutorial = evaluate.load(METRIC, "tutorial", cache_dir=cache)
    assert tutorial.compute(predictions=replies, references=references)["ast_match"] == 1.0
    native = evaluate.load(METRIC, "native", cache_dir=cache)
    assert native.compute(predictions=replies, references=references)["ast_match"] < 1.0
    with pytest.raises(ValueError, match="must be 'native' or 'tutorial', got 'hermes'"):
        evaluate.load(METRIC, "hermes", cache_dir=cache)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{", "reference 0 must be JSON text"),
        ("[]", "reference 0 must be a JSON object with tools and gold"),
        ('{"tools": []}', "reference 0: gold must be a list of calls with name and arguments, got no such field"),
    ],
)
def test_a_reference_that_is_none_is_named(metric, reference, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=["x"], references=[reference])
