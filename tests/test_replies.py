"""An evaluation that is killed goes on where it was, and only with its own replies."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools import generate, stages
from fgtools.artifacts import open_run
from fgtools.models import fingerprint_weights
from fgtools.offline.samples import build_samples
from fgtools.replies import ReplyLog, identify_replies, share_out
from fgtools.rows import build_rows
from tests.toys import fresh_model

ROWS = build_rows(build_samples(60, 9)).rows[:10]


def test_a_killed_evaluation_generates_only_what_is_missing(model, tokenizer, tmp_path, monkeypatch, capsys):
    part, plain = tmp_path / "replies.jsonl.part", generate._generate_batch
    whole = stages.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=24)

    def killed(*args):
        for number, ended in enumerate(plain(*args)):
            if number == 4:
                raise KeyboardInterrupt
            yield ended

    monkeypatch.setattr(generate, "_generate_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        stages.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=24, part=part)
    assert len(part.read_text().splitlines()) == 1 + 4
    part.write_text(part.read_text() + '{"row_id": "cut sh')
    sizes = []
    monkeypatch.setattr(generate, "_generate_batch", lambda *args: sizes.append(len(args[1])) or plain(*args))
    again = stages.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=24, part=part)
    assert again.replies == whole.replies and sizes == [6]
    assert "4 of 10 replies are there already" in capsys.readouterr().out
    again.write(open_run(tmp_path), "replies.jsonl", "scores.json")
    assert not part.exists() and len((tmp_path / "replies.jsonl").read_text().splitlines()) == 10


def test_replies_of_other_rows_another_budget_or_another_model_are_not_taken(model, tokenizer, tmp_path, capsys):
    weights = fingerprint_weights(model)
    identity = identify_replies(weights, ROWS, 24)
    log = ReplyLog(tmp_path / "part", identity)
    log.append("a", "first\nline ✓ \ud800")
    assert ReplyLog(tmp_path / "part", identity).replies == {"a": "first\nline ✓ \ud800"}
    others = [
        identify_replies(weights, ROWS, 24, constrained=True),
        identify_replies(weights, ROWS[1:], 24),
        identify_replies(weights, ROWS, 25),
        identify_replies("", ROWS, 24),
    ]
    assert len({identity, *others}) == 5
    assert ReplyLog(tmp_path / "part", others[0]).replies == {}
    assert "answers other rows or is another model's" in capsys.readouterr().out
    assert [json.loads(line) for line in (tmp_path / "part").read_text().splitlines()] == [{"identity": others[0]}]


@given(st.integers(1, 9), st.integers(2, 4))
def test_every_row_is_answered_by_one_process_and_like_rows_by_the_same(n_rows, world):
    rows = [
        {"row_id": str(i), "tools": [{"n": i % 2}], "messages": [{"content": "x" * (i % 3)}]} for i in range(n_rows)
    ]
    shares = [share_out(rows, rank, world) for rank in range(world)]
    assert sorted(row["row_id"] for share in shares for row in share) == [row["row_id"] for row in rows]
    tools = [row["tools"] for share in shares for row in share]
    assert sum(one != other for one, other in itertools.pairwise(tools)) <= 1
    assert share_out(rows, 0, 1) == rows


def test_a_later_process_keeps_its_own_file_and_goes_on_from_all(tmp_path):
    first = ReplyLog(tmp_path / "part", "one")
    first.append("a", "1")
    other = ReplyLog(tmp_path / "part", "one", rank=1)
    other.append("b", "2")
    assert (tmp_path / "part.1").is_file() and other.gather() == first.gather() == {"a": "1", "b": "2"}
    assert ReplyLog(tmp_path / "part", "one").replies == {"a": "1", "b": "2"}


def test_a_model_is_known_by_its_weights(model):
    before = fingerprint_weights(model)
    assert fingerprint_weights(fresh_model()) == before
    other = fresh_model()
    other.model.norm.weight.data[0] += 1
    assert fingerprint_weights(other) != before
