"""What is saved of a training: in a format that keeps what was learned, and not without a word where it is worse."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from fgtools.__main__ import main
from fgtools.offline.samples import build_samples
from fgtools.train import train
from fgtools.train.confirm import describe_worse, find_evaluation, keeps_gain, rounded
from fgtools.train.restarts import NotFinite
from fgtools.train.trainer import LabelledPositionsTrainer
from tests.toys import small_rows, tiny_model, toy_arguments

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = sorted(small_rows(80, 20), key=lambda row: len(str(row)))[:12]


def test_weights_are_rounded_in_place_and_given_back():
    weights = {"a": torch.tensor([1.0, 1.001, 70000.0]), "b": torch.ones(2, dtype=torch.bfloat16)}
    places = [weight.data_ptr() for weight in weights.values()]
    with rounded(weights, torch.bfloat16):
        assert weights["a"].tolist() == [1.0, 1.0, 70144.0] and weights["a"].dtype == torch.float32
    assert weights["a"].tolist() == pytest.approx([1.0, 1.001, 70000.0])
    assert [weight.data_ptr() for weight in weights.values()] == places


@pytest.mark.parametrize(
    ("start", "trained", "saved", "kept"),
    [
        (2.0, 1.0, 1.1, True),
        (2.0, 1.0, 1.5, True),
        (2.0, 1.0, 1.51, False),
        (2.0, 1.0, 2.2, False),
        (2.0, 1.0, math.inf, False),
        (2.0, 2.5, 2.6, True),  # nothing was gained
    ],
)
def test_a_format_must_keep_half_of_what_was_gained(start, trained, saved, kept):
    assert keeps_gain(start, trained, saved) == kept


def test_worse_is_told_by_rows_where_they_are_known_and_else_by_the_loss():
    better = {"eval_loss": 0.9, "eval_exact_match": 0.5, "eval_choice": 0.505}
    worse = {"eval_loss": 0.4, "eval_exact_match": 0.3, "eval_choice": 0.307}
    assert describe_worse(worse, better, 10) == ""  # more rows right, though the loss is higher
    told = describe_worse(better, worse, 10)
    assert "of 10 held-out rows the model that is saved has 3 right, loss 0.4000, and before" in told
    assert "it had 5 right, loss 0.9000: do not publish it; lower LEARNING_RATE" in told
    assert describe_worse({"eval_loss": 1.0}, {"eval_loss": 1.0}, 10) == ""
    assert "has loss 1.1000, and before the training it had loss 1.0000" in describe_worse(
        {"eval_loss": 1.0}, {"eval_loss": 1.1}, 10
    )
    assert find_evaluation([{"step": 0, "eval_loss": 3}, {"step": 0, "loss": 1}], 0) == {"step": 0, "eval_loss": 3}
    assert find_evaluation([{"step": 0, "eval_loss": 3}], 4) == {}


def go(tokenizer, folder, learning_rate, dtype=torch.bfloat16, engine="", **options):
    config = toy_arguments(n_rows=8, epochs=1, batch_size=4, learning_rate=learning_rate)
    model = tiny_model().to(dtype)
    result = train(model, tokenizer, ROWS[:8], ROWS[8:], config, folder / "model", **options)
    saved = {weight.dtype for weight in load_file(folder / "model" / "model.safetensors").values()}
    return result, model, saved, json.loads((folder / "model" / "config.json").read_text())["dtype"]


@pytest.mark.parametrize("rank", [0, 2])
def test_what_the_format_of_the_file_keeps_is_measured_and_fp32_saved_where_it_is_lost(
    rank, tokenizer, tmp_path, capsys
):
    _, model, saved, named = go(tokenizer, tmp_path / "a", 3e-3, lora_rank=rank)
    assert saved == {torch.bfloat16} and model.dtype == torch.bfloat16 and named == "bfloat16"
    assert "saved in bfloat16, as it was loaded: on 4 held-out rows the loss was" in capsys.readouterr().out
    _, model, saved, named = go(tokenizer, tmp_path / "b", 1e-6, lora_rank=rank)
    assert saved == {torch.float32} and model.dtype == torch.float32 and named == "float32"
    said = capsys.readouterr().out
    assert "saved in float32, a file 2 times as large: on 4 held-out rows the loss was" in said


def test_weights_that_the_format_cannot_hold_are_saved_in_fp32(tokenizer, tmp_path, monkeypatch):
    def overflow(self):
        raise NotFinite("the evaluation loss is nan")

    monkeypatch.setattr(LabelledPositionsTrainer, "measure_held_out", overflow)
    assert go(tokenizer, tmp_path, 3e-3)[2] == {torch.float32}


def test_in_fp32_nothing_is_measured_again(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LabelledPositionsTrainer, "measure_held_out", lambda self: pytest.fail("measured"))
    result, _, saved, _ = go(tokenizer, tmp_path, 1e-3, dtype=torch.float32)
    assert saved == {torch.float32} and result.warning == "" and "saved in" not in capsys.readouterr().out


def test_a_training_that_made_the_model_worse_is_not_saved_without_saying_so(tmp_path, capsys):
    """From the command line; ten steps or fewer are too few for the rule of `divergence`."""
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in build_samples(60, 21)), encoding="utf-8")
    assert main(["prepare", "--data", str(data), "--out", str(out), "--n-eval", "8"]) == 0
    words = ["train", "--rows", str(out), "--model", "standin", "--profile", "offline", "--out", str(out)]
    assert main([*words, "--epochs", "0.2", "--learning-rate", "0.5", "--ignore-audit"]) == 0
    said = capsys.readouterr().out
    assert "worse than its start: of" in said and said.index("worse than") < said.index("the model lies in")
    told = json.loads((out / "train.json").read_text())
    assert told["warning"].startswith("worse than its start: of ") and told["warning"] in said
