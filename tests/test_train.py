"""Training on a toy: the loss falls on the labelled tokens, the folder is whole, what cannot train says why."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from fgtools.encoder import encode_rows
from fgtools.models import load_model, load_tokenizer
from fgtools.offline.samples import build_samples
from fgtools.profiles import Training
from fgtools.prompts import IGNORED
from fgtools.rows import build_rows
from fgtools.train import TrainingError, train

ROWS = tuple(row for row in build_rows(build_samples(80, 11)).rows if len(row["tools"]) <= 3)[:20]
CONFIG = Training(
    learning_rate=2e-3,
    epochs=2,
    batch_size=4,
    accumulation_steps=1,
    warmup_fraction=0.1,
    gradient_checkpointing=False,
    seed=1,
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("standin")


@pytest.fixture(autouse=True)
def batch_run(monkeypatch):
    monkeypatch.setenv("FGTOOLS_BATCH", "1")


def fresh_model():
    return load_model("standin", device="cpu", quiet=True)


def completion_loss(model, tokenizer, rows):
    """The loss of the labelled tokens, computed without any trainer."""
    losses, labels = 0.0, 0
    for one in encode_rows(rows, tokenizer).encoded:
        with torch.inference_mode():
            logits = model(torch.tensor([one.input_ids])).logits[0, :-1].float()
        wanted = torch.tensor(one.labels[1:])
        losses += torch.nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum").item()
        labels += int((wanted != IGNORED).sum())
    return losses / labels


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
    import os

    os.environ["FGTOOLS_BATCH"] = "1"
    folder = tmp_path_factory.mktemp("run") / "model"
    return train(fresh_model(), tokenizer, ROWS[:16], ROWS[16:], CONFIG, folder, "native"), folder


def test_training_lowers_the_loss_of_the_completions(trained, tokenizer):
    result, folder = trained
    before = completion_loss(fresh_model(), tokenizer, ROWS[:16])
    after = completion_loss(AutoModelForCausalLM.from_pretrained(folder), tokenizer, ROWS[:16])
    assert after < before
    assert (result.n_train, result.n_eval, result.steps) == (16, 4, 8)


def test_the_first_evaluation_loss_is_that_of_the_labelled_tokens(trained, tokenizer):
    result, _ = trained
    first = next(entry for entry in result.history if "eval_loss" in entry)
    assert first["step"] == 0
    assert first["eval_loss"] == pytest.approx(completion_loss(fresh_model(), tokenizer, ROWS[16:]), rel=1e-3)
    assert 0 < first["eval_mean_token_accuracy"] < 1


def test_the_history_and_the_counts_are_told(trained, tokenizer):
    result, folder = trained
    encoded = encode_rows(ROWS[:16], tokenizer).encoded
    assert result.tokens == 2 * sum(len(one.input_ids) for one in encoded)
    assert 0 < result.label_tokens < result.tokens / 2
    assert result.tokens_per_second > 0 and result.peak_memory_bytes > 10_000_000
    saved = result.to_dict()
    assert "folder" not in saved and saved["history"] and saved["tokens_per_second"] == result.tokens_per_second
    assert result.folder == folder and AutoModelForCausalLM.from_pretrained(folder).config.use_cache is True


def test_equal_seeds_give_equal_losses(trained, tokenizer, tmp_path):
    result, _ = trained
    again = train(fresh_model(), tokenizer, ROWS[:16], ROWS[16:], CONFIG, tmp_path / "model", "native")
    losses = [[entry["eval_loss"] for entry in one.history if "eval_loss" in entry] for one in (result, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_accumulation_and_checkpointing_change_nothing(recipe, tokenizer, tmp_path):
    rows = [row for row in ROWS if row["gold"]][:5]
    shapes = [(4, 1, False), (1, 4, False), (2, 2, True)]
    losses = []
    for batch_size, steps, checkpointing in shapes:
        config = dataclasses.replace(
            CONFIG,
            epochs=3,
            warmup_fraction=0.0,
            batch_size=batch_size,
            accumulation_steps=steps,
            gradient_checkpointing=checkpointing,
        )
        result = train(fresh_model(), tokenizer, rows[:4], rows[4:], config, tmp_path / "model", recipe)
        losses.append([entry["eval_loss"] for entry in result.history if "eval_loss" in entry])
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_the_tutorials_whole_text_is_trained_under_its_recipe(tokenizer, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1)
    rows = [row for row in ROWS if row["gold"]][:8]
    result = train(fresh_model(), tokenizer, rows[:6], rows[6:], config, tmp_path / "model", "tutorial")
    assert result.label_tokens == result.tokens and result.n_too_long == 0


def test_rows_that_do_not_fit_are_counted_and_none_at_all_is_an_error(tokenizer, tmp_path):
    lengths = sorted(len(one.input_ids) for one in encode_rows(ROWS[:16], tokenizer).encoded)
    config = dataclasses.replace(CONFIG, epochs=1)
    short = [row for row in ROWS if len(encode_rows([row], tokenizer, "native", lengths[8]).encoded)]
    result = train(fresh_model(), tokenizer, ROWS[:16], short, config, tmp_path / "m", max_length=lengths[8])
    assert result.n_train + result.n_too_long == 16 and result.n_too_long >= 1
    with pytest.raises(TrainingError, match=r"a training row must fit 10 tokens, but all 16 are longer"):
        train(fresh_model(), tokenizer, ROWS[:16], ROWS[16:], CONFIG, tmp_path / "m", max_length=10)


@pytest.mark.parametrize(("rows", "side"), [((), "training"), (ROWS[:2], "evaluation")])
def test_an_empty_split_is_named(rows, side, tokenizer, tmp_path):
    with pytest.raises(TrainingError, match=f"the {side} split must hold rows, but it is empty"):
        train(fresh_model(), tokenizer, rows, (), CONFIG, tmp_path / "model")


def test_a_loss_that_explodes_leaves_the_older_model_whole(tokenizer, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("older")
    model = fresh_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[2] = float("nan")
    with pytest.raises(TrainingError, match="the loss must stay finite"):
        train(model, tokenizer, ROWS[:4], ROWS[4:6], CONFIG, tmp_path / "model")
    assert (tmp_path / "model" / "config.json").read_text() == "older"
