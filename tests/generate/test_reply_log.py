"""An evaluation that is killed goes on where it was, and only with its own replies."""

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgtools.generate import replies as generate
from fgtools.generate.reply_log import ReplyLog, find_parts, identify_replies, shard_rows
from fgtools.metrics import Confidence, GeneratedReply
from fgtools.models.load import fingerprint_model
from fgtools.offline.samples import build_samples
from fgtools.prompts.encode import encode_prompt
from fgtools.rows import build_rows
from fgtools.run import evaluation
from fgtools.run.folder import open_run
from tests.toys import fresh_model

ROWS = build_rows(build_samples(60, 9)).rows[:10]
REPLIES = {"a": GeneratedReply("1", Confidence(3, -0.5, -0.25)), "b": GeneratedReply("2")}


def test_a_killed_evaluation_generates_only_what_is_missing(model, tokenizer, tmp_path, monkeypatch, capsys):
    part, plain = tmp_path / "replies.jsonl.part", generate._answer_batch
    whole = evaluation.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=24)

    def killed(*args):
        for number, ended in enumerate(plain(*args)):
            if number == 4:
                raise KeyboardInterrupt
            yield ended

    monkeypatch.setattr(generate, "_answer_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=24, part=part)
    assert len(part.read_text().splitlines()) == 1 + 4
    part.write_text(part.read_text() + '{"row_id": "cut sh')
    sizes = []
    monkeypatch.setattr(generate, "_answer_batch", lambda *args: sizes.append(len(args[1])) or plain(*args))
    again = evaluation.evaluate(model, tokenizer, ROWS, "native", max_new_tokens=24, part=part)
    assert again.replies == whole.replies and sizes == [6]
    for one, other in zip(again.generated, whole.generated, strict=True):  # in other batches: fp32 to 1e-4
        assert one.confidence.call == pytest.approx(other.confidence.call, abs=1e-4)
        assert one.confidence.name == pytest.approx(other.confidence.name, abs=1e-4)
    assert "4 of 10 replies are there already" in capsys.readouterr().out
    again.write(open_run(tmp_path), "replies.jsonl", "scores.json")
    lines = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert not part.exists() and evaluation.match_replies(ROWS, lines) == list(again.generated)


def test_replies_of_other_rows_another_budget_or_another_model_are_not_taken(model, tokenizer, tmp_path, capsys):
    prompts = [encode_prompt(row, tokenizer) for row in ROWS]
    asked = {"rows": ROWS, "prompts": prompts, "stops": [1, 50, 106], "max_new_tokens": 24}
    identity = identify_replies("model", **asked)
    log = ReplyLog(tmp_path / "part", identity)
    reply = GeneratedReply("first\nline ✓ \ud800", Confidence(4, -0.25, -1e-09))
    log.append("a", reply)
    assert ReplyLog(tmp_path / "part", identity).replies == {"a": reply}
    renamed = [{**ROWS[0], "row_id": "another"}, *ROWS[1:]]
    fewer_tools = [{**ROWS[0], "tools": []}, *ROWS[1:]]
    others = [
        identify_replies("another", **asked),
        *(identify_replies("model", **{**asked, **change}) for change in ({"stops": [1]}, {"max_new_tokens": 25})),
        identify_replies("model", **{**asked, "rows": ROWS[1:], "prompts": prompts[1:]}),
        identify_replies("model", **{**asked, "rows": renamed}),
        identify_replies("model", **{**asked, "prompts": [prompts[0][1:], *prompts[1:]]}),
        identify_replies("model", **asked, constrained=True),
        identify_replies("model", **{**asked, "rows": fewer_tools}, constrained=True),
    ]
    assert len({identity, *others}) == 9
    assert ReplyLog(tmp_path / "part", others[0]).replies == {}
    assert "answers other rows or is another model's" in capsys.readouterr().out
    assert [json.loads(line) for line in (tmp_path / "part").read_text().splitlines()] == [{"identity": others[0]}]


@given(st.integers(1, 9), st.integers(2, 4))
def test_every_row_is_answered_by_one_process_and_like_rows_by_the_same(n_rows, world):
    rows = [
        {"row_id": str(i), "tools": [{"n": i % 2}], "messages": [{"content": "x" * (i % 3)}]} for i in range(n_rows)
    ]
    shares = [shard_rows(rows, rank, world) for rank in range(world)]
    assert sorted(row["row_id"] for share in shares for row in share) == [row["row_id"] for row in rows]
    tools = [row["tools"] for share in shares for row in share]
    assert sum(one != other for one, other in itertools.pairwise(tools)) <= 1
    assert shard_rows(rows, 0, 1) == rows


def test_a_later_process_keeps_its_own_file_and_goes_on_from_all(tmp_path):
    first = ReplyLog(tmp_path / "part", "one")
    first.append("a", REPLIES["a"])
    other = ReplyLog(tmp_path / "part", "one", rank=1)
    other.append("b", REPLIES["b"])
    assert (tmp_path / "part.1").is_file() and other.gather() == first.gather() == REPLIES
    assert ReplyLog(tmp_path / "part", "one").replies == REPLIES


def test_a_model_is_known_by_its_weights(model):
    before = fingerprint_model(model)
    assert fingerprint_model(fresh_model()) == before
    changed = [fresh_model() for _ in range(4)]
    changed[0].model.norm.weight.data[0] += 1
    rows = changed[1].model.embed_tokens.weight.data
    rows[-len(rows) // 8 :] += 1  # far from the first numbers
    changed[2].config.sliding_window += 1
    changed[3].model.norm.to(torch.bfloat16)  # the same numbers in another format compute other things
    assert len({before, *map(fingerprint_model, changed)}) == 5


def test_another_chat_template_begins_anew(model, tokenizer, tmp_path, monkeypatch):
    part, sizes, plain = tmp_path / "replies.jsonl.part", [], generate._answer_batch
    monkeypatch.setattr(generate, "_answer_batch", lambda *args: sizes.append(len(args[1])) or plain(*args))
    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("developer", "system")
    assert other.chat_template != tokenizer.chat_template
    for one in (tokenizer, tokenizer, other):
        evaluation.evaluate(model, one, ROWS, "native", max_new_tokens=8, part=part)
    assert sizes == [10, 10]


@pytest.mark.parametrize(
    "line",
    [
        *(b"[1]", b"3", b"null", b"{}", b'{"row_id": "a"}', b'{"row_id": ["a"], "reply": "x"}', b'{"row_id": "a", "re'),
        *(b'{"row_id": "a", "reply": null}', b'{"row_id": "a", "reply": "\xff"}', b"[" * 100_000, b""),
        *(b'{"row_id": "a", "reply": "1", "confidence": {"call": -1}}', b'{"row_id": "a", "reply": "1", "more": 1}'),
    ],
)
def test_a_line_that_is_no_reply_is_generated_again(tmp_path, line):
    part = tmp_path / "part"
    part.write_bytes(b'{"identity": "one"}\n' + line + b'\n{"row_id": "b", "reply": "2"}\n')
    log = ReplyLog(part, "one")
    assert log.replies == {"b": REPLIES["b"]}
    log.append("a", REPLIES["a"])
    assert ReplyLog(part, "one").replies == REPLIES


def test_a_part_that_is_taken_away_loses_nothing_of_this_process(tmp_path):
    log = ReplyLog(tmp_path / "replies.a[1].jsonl.part", "one")
    log.append("a", REPLIES["a"])
    log.path.unlink()
    log.append("b", REPLIES["b"])
    assert log.gather() == REPLIES
    other = ReplyLog(log.path, "one", rank=1)
    assert find_parts(log.path) == [log.path, other.own]  # a name may hold what a pattern holds
