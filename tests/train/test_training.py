"""Training on a toy: the loss falls on the labelled tokens, the folder is whole, what cannot train says why."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from fgtools.models import ModelError, load_tokenizer
from fgtools.offline.samples import build_samples
from fgtools.profiles import adapt_recipe, get_recipe
from fgtools.prompts import IGNORED, encode_rows
from fgtools.prompts.encode import render_completion
from fgtools.rows import build_rows
from fgtools.run.training import hold_out_rows
from fgtools.train import TrainingError, train
from fgtools.train.trainer import LabelledPositionsTrainer
from tests.toys import fresh_model, small_rows, tiny_model, toy_arguments

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = small_rows(80, 20)


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
    return train(fresh_model(), tokenizer, ROWS[:16], ROWS[16:], toy_arguments(), folder, "native"), folder


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
    assert result.label_tokens == 2 * sum(len(one.input_ids) - one.n_prompt for one in encoded)
    assert 0 < result.label_tokens < result.tokens / 2 and result.peak_memory_bytes > 10_000_000
    saved = result.to_dict()
    assert saved["history"] and saved["tokens_per_second"] == result.tokens / result.seconds
    assert AutoModelForCausalLM.from_pretrained(folder).config.use_cache is True


def test_equal_seeds_give_equal_losses(trained, tokenizer, tmp_path):
    result, _ = trained
    again = train(fresh_model(), tokenizer, ROWS[:16], ROWS[16:], toy_arguments(), tmp_path / "model", "native")
    losses = [[entry["eval_loss"] for entry in one.history if "eval_loss" in entry] for one in (result, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_accumulation_and_checkpointing_change_nothing(recipe, tokenizer, tmp_path):
    rows = [row for row in ROWS if row["gold"]][:4]  # the loss of the first, which is trained on, must fall
    shapes = [(4, 1, False), (1, 4, False), (2, 2, True)]
    losses = []
    for batch_size, steps, checkpointing in shapes:
        config = toy_arguments(
            recipe,
            epochs=2,
            batch_size=batch_size,
            eval_steps=1,
            save_steps=1,
            warmup_steps=0,
            gradient_accumulation_steps=steps,
            gradient_checkpointing=checkpointing,
        )
        result = train(tiny_model(), tokenizer, rows, rows[:1], config, tmp_path / "model", recipe)
        losses.append([entry["eval_loss"] for entry in result.history if "eval_loss" in entry])
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_the_tutorials_whole_text_is_trained_under_its_recipe(tokenizer, tmp_path):
    config = toy_arguments("tutorial", n_rows=6, epochs=1)
    rows = [row for row in ROWS if row["gold"]][:8]
    result = train(tiny_model(), tokenizer, rows[:6], rows[6:], config, tmp_path / "model", "tutorial")
    assert result.label_tokens == result.tokens and result.n_too_long == 0


def test_rows_that_do_not_fit_are_counted_and_none_at_all_is_an_error(tokenizer, tmp_path):
    lengths = sorted(len(one.input_ids) for one in encode_rows(ROWS[:16], tokenizer).encoded)
    config = toy_arguments(epochs=1, max_length=lengths[8])
    short = [row for row in ROWS if len(encode_rows([row], tokenizer, "native", lengths[8]).encoded)]
    result = train(tiny_model(), tokenizer, ROWS[:16], short, config, tmp_path / "m")
    assert result.n_train + result.n_too_long == 16 and result.n_too_long >= 1
    with pytest.raises(TrainingError, match=r"a training row must fit 10 tokens, but all 16 are longer"):
        train(tiny_model(), tokenizer, ROWS[:16], ROWS[16:], toy_arguments(max_length=10), tmp_path / "m")


@pytest.mark.parametrize(("rows", "side"), [((), "training"), (ROWS[:2], "evaluation")])
def test_an_empty_split_is_named(rows, side, tokenizer, tmp_path):
    with pytest.raises(TrainingError, match=f"the {side} split must hold rows, but it is empty"):
        train(tiny_model(), tokenizer, rows, (), toy_arguments(), tmp_path / "model")


@pytest.mark.parametrize("engine", ["labelled", "trl"])
def test_a_loss_that_explodes_leaves_the_older_model_whole(engine, tokenizer, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("older")
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[2] = float("nan")
    with pytest.raises(TrainingError, match="the loss must stay finite"):
        recipe = adapt_recipe(get_recipe("native"), engine=engine)
        train(model, tokenizer, ROWS[:4], ROWS[4:6], toy_arguments(n_rows=4), tmp_path / "model", recipe)
    assert not list((tmp_path / "model.checkpoints").glob("checkpoint-*"))
    assert (tmp_path / "model" / "config.json").read_text() == "older"


@pytest.mark.parametrize("engine", ["labelled", "trl"])
def test_memory_that_does_not_hold_a_step_says_what_to_lower(engine, tokenizer, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    model = tiny_model()
    monkeypatch.setattr(model.model.layers[0].mlp, "forward", fail)
    recipe = adapt_recipe(get_recipe("native"), engine=engine)
    with pytest.raises(
        TrainingError, match=r"fit the memory, but CUDA out of memory\.: lower MAX_LENGTH or BATCH_SIZE"
    ):
        train(model, tokenizer, ROWS[:4], ROWS[4:6], toy_arguments(n_rows=4), tmp_path / "model", recipe)


@pytest.fixture
def second_is_best(monkeypatch):
    """Let the second of six evaluations, after step 2 of 6, look best."""
    plain, choices = LabelledPositionsTrainer.evaluation_loop, iter([0.0, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1])

    def evaluate(self, *args, **options):
        output = plain(self, *args, **options)
        output.metrics["eval_choice"] = next(choices)
        return output

    monkeypatch.setattr(LabelledPositionsTrainer, "evaluation_loop", evaluate)
    return toy_arguments(n_rows=8, epochs=3)


@pytest.mark.parametrize(
    ("of_last", "of_best", "saved"), [("gold", "none", 6), ("none", "gold", 2), ("gold", "gold", 6)]
)
def test_the_better_of_best_and_last_checkpoint_by_generating_is_saved(
    of_last, of_best, saved, second_is_best, tokenizer, tmp_path, monkeypatch
):
    rows = [row for row in ROWS if row["gold"]]
    texts = {"gold": [render_completion(row) for row in rows[8:]], "none": [""] * len(rows[8:])}
    replies = iter([texts[of_last], texts[of_best]])
    monkeypatch.setattr("fgtools.train.choice.generate_replies", lambda *_, **__: next(replies))
    result = train(tiny_model(), tokenizer, rows[:8], rows[8:], second_is_best, tmp_path / "model")
    counts = {"gold": len(rows[8:]), "none": 0}
    assert result.candidates == tuple(
        {"step": step, "right": counts[text], "rows": len(rows[8:])} for step, text in ((6, of_last), (2, of_best))
    )
    assert result.saved_step == saved
    losses = {entry["step"]: entry["eval_loss"] for entry in result.history if "eval_loss" in entry}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert completion_loss(model, tokenizer, rows[8:]) == pytest.approx(losses[saved], rel=1e-4)


def test_without_a_choice_the_last_weights_are_saved(second_is_best, tokenizer, tmp_path):
    second_is_best.load_best_model_at_end = False
    result = train(tiny_model(), tokenizer, ROWS[:8], ROWS[8:12], second_is_best, tmp_path / "model")
    assert result.saved_step == result.steps == 6 and result.candidates == ()


def test_patience_ends_a_training_that_gets_no_better(tokenizer, tmp_path):
    config = toy_arguments(n_rows=12, epochs=20, learning_rate=1e-12)  # nothing moves, so nothing gets better
    result = train(tiny_model(), tokenizer, ROWS[:12], ROWS[12:], config, tmp_path / "model", patience=1)
    assert result.steps < 60 and result.patience == 1
    assert result.tokens < 20 * sum(len(one.input_ids) for one in encode_rows(ROWS[:12], tokenizer).encoded)


def test_adapters_train_and_the_saved_model_is_plain(tokenizer, tmp_path):
    config = toy_arguments(n_rows=12, learning_rate=5e-3, epochs=4)
    model = tiny_model()
    result = train(model, tokenizer, ROWS[:12], ROWS[12:], config, tmp_path / "model", lora_rank=4)
    losses = [entry["eval_loss"] for entry in result.history if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    assert not list((tmp_path / "model").glob("adapter*"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    step = next(entry for entry in result.history if "eval_loss" in entry and entry["step"] == result.saved_step)
    assert completion_loss(saved, tokenizer, ROWS[12:]) == pytest.approx(step["eval_loss"], rel=1e-3)


def test_the_saved_folder_reloads_to_identical_logits_and_is_complete(tokenizer, tmp_path):
    model = tiny_model()
    train(model, tokenizer, ROWS[:8], ROWS[8:12], toy_arguments(n_rows=8, epochs=1), tmp_path / "model")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.tensor([encode_rows(ROWS[:1], tokenizer).encoded[0].input_ids])
    with torch.inference_mode():
        assert torch.equal(saved(ids).logits, model.eval()(ids).logits)
    assert saved.generation_config.eos_token_id == [1, 50, 106] and saved.config.use_cache is True
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names


def test_bf16_weights_train_as_fp32_and_are_saved_as_bf16(tokenizer, tmp_path):
    model = tiny_model().to(torch.bfloat16)
    config = toy_arguments(n_rows=8, epochs=1)
    result = train(model, tokenizer, ROWS[:8], ROWS[8:12], config, tmp_path / "model")
    assert result.precision == "fp32" and model.dtype == torch.bfloat16
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").dtype == torch.bfloat16


def test_fp16_that_overflows_starts_again_in_fp32(tokenizer, tmp_path, capsys):
    rows = sorted(ROWS, key=lambda row: len(str(row)))[:6]  # fp16 is slow on a CPU
    config = toy_arguments(n_rows=4, epochs=1, precision="fp16")

    def overflowing():
        model = tiny_model()
        with torch.no_grad():  # inside the gated MLP, where no norm can help
            for layer in model.model.layers:
                layer.pre_feedforward_layernorm.weight += 3000
        return model

    result = train(overflowing(), tokenizer, rows[:4], rows[4:], config, tmp_path / "a")
    shown = capsys.readouterr().out
    assert result.precision == "fp32"
    assert "precision fp16: asked for by name" in shown and "fp16 is not finite here (the evaluation loss is" in shown
    config = toy_arguments(n_rows=4, epochs=1)
    wanted = train(overflowing(), tokenizer, rows[:4], rows[4:], config, tmp_path / "b")
    losses = [[entry["eval_loss"] for entry in one.history if "eval_loss" in entry] for one in (result, wanted)]
    assert losses[0] == losses[1]


def test_fp16_trains_as_fp32_does_where_it_holds(tokenizer, tmp_path):
    rows = sorted(ROWS, key=lambda row: len(str(row)))[:6]
    losses = []
    for precision in ("fp16", "fp32"):
        config = toy_arguments(n_rows=4, precision=precision, load_best_model_at_end=False)
        result = train(tiny_model(), tokenizer, rows[:4], rows[4:], config, tmp_path / precision)
        assert result.precision == precision
        losses.append([entry["eval_loss"] for entry in result.history if "eval_loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_rows_whose_labels_are_all_cut_off_are_counted(tokenizer, tmp_path):
    recipe = dataclasses.replace(get_recipe("native"), over_length="cut")
    lengths = sorted((len(one.input_ids), one.n_prompt) for one in encode_rows(ROWS[:16], tokenizer).encoded)
    budget = lengths[8][1]
    short = [row for row in ROWS if len(encode_rows([row], tokenizer, "native", budget).encoded)]
    config = toy_arguments(epochs=1, max_length=budget)
    result = train(tiny_model(), tokenizer, ROWS[:16], short, config, tmp_path / "m", recipe)
    assert result.n_unlabelled >= 1 and result.n_train + result.n_unlabelled == 16
    with pytest.raises(TrainingError, match="a training row must carry labels, but none of 16 does"):
        train(tiny_model(), tokenizer, ROWS[:16], short, toy_arguments(max_length=30), tmp_path / "m", recipe)


def test_a_tokenizer_of_another_model_is_refused_before_anything_is_trained(tokenizer, tmp_path):
    model = tiny_model()
    model.resize_token_embeddings(300)
    with pytest.raises(
        TrainingError, match=r"every token of the rows must be among the model's 300, but '.*' has the id"
    ):
        train(model, tokenizer, ROWS[:8], ROWS[8:12], toy_arguments(), tmp_path / "model")


def test_a_tokenizer_with_two_tokens_more_than_the_model_trains(tokenizer, tmp_path):
    larger = load_tokenizer("standin")
    larger.add_tokens(["<one_more>", "<another>"])
    config = toy_arguments(n_rows=8, epochs=1)
    assert len(larger) > tiny_model().config.vocab_size
    assert train(tiny_model(), larger, ROWS[:8], ROWS[8:12], config, tmp_path / "m").n_train == 8


def test_a_tokenizer_that_splits_the_marks_of_a_call_is_refused(tmp_path):
    class Splitting:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": list(range(len(text)))}

    with pytest.raises(ModelError, match="the tokenizer must know <start_function_call> as one token, but splits it"):
        train(tiny_model(), Splitting(), ROWS[:8], ROWS[8:12], toy_arguments(), tmp_path / "m")


def test_rows_that_choose_the_checkpoint_are_not_those_of_the_evaluation():
    rows = build_rows(build_samples(300, 3)).rows
    kept, held = hold_out_rows(rows, ("evaluation",), get_recipe("native"), 1)
    assert len(held) in range(20, len(rows) // 10 + 1) and len(kept) + len(held) == len(rows)
    assert not {row["group"] for row in kept} & {row["group"] for row in held}
    assert hold_out_rows(rows, ("evaluation",), get_recipe("native"), 1) == (kept, held)
    assert hold_out_rows(rows, ("evaluation",), get_recipe("tutorial"), 1) == (rows, ("evaluation",))
