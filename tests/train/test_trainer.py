"""The engine beside TRL's own trainer: the same loss, the same gradients, the same curve; however a step is cut."""

import contextlib
import dataclasses

import pytest
import torch

from fgtools.files import InputError
from fgtools.models import attention
from fgtools.models.device import Precision
from fgtools.models.lora import add_adapters, merge_adapters
from fgtools.profiles import FIRST_SCALE, adapt_recipe, get_recipe
from fgtools.prompts import encode_rows
from fgtools.train import in_place
from fgtools.train.arguments import TrainingError
from fgtools.train.loss import restore_forward
from fgtools.train.plan import (
    CPU_TOKENS,
    MicroBatches,
    choose_micro_batches,
    estimate_activation_bytes,
    plan_precision,
    plan_training,
)
from fgtools.train.restarts import NotFinite, RestartableTrainer
from fgtools.train.trainer import StepSampler, build_trainer
from tests.toys import fresh_model, small_rows, tiny_model, toy_arguments

pytestmark = pytest.mark.usefixtures("batch_run")
ROWS = small_rows(80, 12)
TRL = adapt_recipe(get_recipe("native"), engine="trl")


def eight_a_step(recipe="native", **changes):
    return toy_arguments(
        recipe, **{"n_rows": 12, "epochs": 1, "gradient_accumulation_steps": 2, "warmup_steps": 0, **changes}
    )


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_rows(ROWS, tokenizer).encoded


def make_trainer(tokenizer, encoded, folder, arguments=None, recipe="native", model=None, **changes):
    """Build a trainer; changes are of its plan."""
    arguments = arguments or eight_a_step()
    arguments.output_dir = str(folder)
    trainer = build_trainer(model or tiny_model(), tokenizer, encoded, encoded, arguments, recipe)
    if changes:
        trainer._build_again(plan=dataclasses.replace(trainer.task.plan, **changes))
    return trainer


def step_gradients(trainer, rows):
    """Loss and gradients of one optimizer step on these rows, as the trainer's loop computes them."""
    trainer.create_optimizer()
    trainer.model.zero_grad()
    size = len(rows) if trainer.args.gradient_accumulation_steps == 1 else trainer.args.per_device_train_batch_size
    columns = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
    batches = iter([trainer.data_collator(columns[start : start + size]) for start in range(0, len(rows), size)])
    batches, count = trainer.get_batch_samples(batches, len(rows) // size, torch.device("cpu"))
    loss = sum(trainer.training_step(trainer.model, batch, count).item() for batch in batches)
    return loss, {name: weight.grad.clone() for name, weight in trainer.model.named_parameters()}


CUTS = {
    "one micro-batch": {"micro_batches": MicroBatches(10**6, False, "")},
    "a few": {"micro_batches": MicroBatches(900, False, "")},
    "row by row": {"micro_batches": MicroBatches(1, False, "")},
    "checkpointing": {"micro_batches": MicroBatches(900, True, "")},
}


@pytest.mark.parametrize("cut", CUTS)
def test_loss_and_gradients_equal_trls(cut, tokenizer, encoded, tmp_path):
    wanted_loss, wanted = step_gradients(make_trainer(tokenizer, encoded, tmp_path, recipe=TRL), encoded[:8])
    loss, gradients = step_gradients(make_trainer(tokenizer, encoded, tmp_path, **CUTS[cut]), encoded[:8])
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    for name, gradient in gradients.items():
        # Sums in another order differ by what fp32 rounds off: up to 1.1e-5 on the processors tried.
        assert (gradient - wanted[name]).abs().max() <= 1e-4 * wanted[name].abs().max(), name


@pytest.mark.parametrize(("cut", "chunk"), [("one micro-batch", in_place.CHUNK), ("a few", 500)])
def test_in_bf16_loss_and_gradients_are_as_near_to_fp32_as_trls(cut, chunk, tokenizer, encoded, tmp_path, monkeypatch):
    """bf16 keeps 8 bits. To TRL: 0.1 % of the loss, 1 % of the gradient's norm; to fp32: 5 %, and no more than TRL."""
    monkeypatch.setattr(in_place, "CHUNK", chunk)  # of a vocabulary of 2,680
    ours = {**CUTS[cut], "precision": Precision("bf16", "")}
    _, exact = step_gradients(make_trainer(tokenizer, encoded, tmp_path, **CUTS[cut]), encoded[:8])
    trl = make_trainer(tokenizer, encoded, tmp_path, recipe=TRL)
    with torch.autocast("cpu", torch.bfloat16):  # accelerate's own would hold for every later test of this process
        loss_of_trl, of_trl = step_gradients(trl, encoded[:8])
    loss, gradients = step_gradients(make_trainer(tokenizer, encoded, tmp_path, **ours), encoded[:8])
    assert loss == pytest.approx(loss_of_trl, rel=1e-3)

    def distance(one, other):
        return sum((one[name] - other[name]).square().sum().item() for name in one) ** 0.5

    size = distance(exact, {name: torch.zeros_like(gradient) for name, gradient in exact.items()})
    assert 0 < distance(gradients, exact) < 0.05 * size and distance(gradients, of_trl) < 0.01 * size
    assert distance(gradients, exact) < 1.2 * distance(of_trl, exact)


def test_the_loss_is_over_the_labels_of_the_whole_step_not_a_mean_of_means(tokenizer, encoded, tmp_path):
    model = tiny_model()
    losses, labels = 0.0, 0
    for row in encoded[:8]:
        with torch.no_grad():
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        wanted = torch.tensor(row.labels[1:])
        losses += torch.nn.functional.cross_entropy(logits, wanted, ignore_index=-100, reduction="sum").item()
        labels += int((wanted != -100).sum())
    loss, _ = step_gradients(make_trainer(tokenizer, encoded, tmp_path, **CUTS["row by row"]), encoded[:8])
    assert loss == pytest.approx(losses / labels, rel=1e-5)


@pytest.mark.parametrize("n_rows", [1, 5, 12])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_out_every_row_of_a_step(n_rows, world):
    lengths = list(range(1, n_rows + 1))
    alone = list(StepSampler(lengths, 4, 7))
    shares = [list(StepSampler(lengths, 4, 7, rank, world)) for rank in range(world)]
    for step, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert sorted(row for part in parts for row in part) == sorted(step)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_empty_share_of_a_step_is_a_batch_without_labels(tokenizer, encoded, tmp_path):
    trainer = make_trainer(tokenizer, encoded[:5], tmp_path)
    trainer.steps = StepSampler([len(row.input_ids) for row in encoded[:5]], 4, 1, 3, 4)
    batches = list(trainer.get_train_dataloader())
    assert len(batches) == 2 and sorted(int((batch["labels"] != -100).sum()) for batch in batches)[0] == 0


def test_evaluation_counts_labels_and_whole_rows(tokenizer, encoded, tmp_path):
    trainer = make_trainer(tokenizer, encoded, tmp_path, model=fresh_model(), **CUTS["a few"])
    metrics = trainer.evaluate()
    restore_forward(trainer.model)
    right, labels, exact = 0, 0, 0
    for row in encoded:
        with torch.no_grad():
            predicted = trainer.model(torch.tensor([row.input_ids])).logits[0, :-1].argmax(-1)
        wanted = torch.tensor(row.labels[1:])
        hits = (predicted == wanted)[wanted != -100]
        right, labels, exact = right + int(hits.sum()), labels + len(hits), exact + bool(hits.all())
    assert metrics["eval_mean_token_accuracy"] == pytest.approx(right / labels, abs=1e-9)
    assert metrics["eval_exact_match"] == exact / len(encoded)
    assert exact / len(encoded) < metrics["eval_choice"] < (exact + 1) / len(encoded)


def test_cudnns_attention_is_off_in_every_step_and_on_again_afterwards(tokenizer, encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "detect_capability", lambda device: (9, 0))
    trainer, seen = make_trainer(tokenizer, encoded, tmp_path, eight_a_step(max_steps=1)), []
    watch = trainer.model.model.register_forward_pre_hook(
        lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled())
    )
    trainer.train()
    watch.remove()
    assert seen and not any(seen) and torch.backends.cuda.cudnn_sdp_enabled()


def test_weights_are_cast_once_a_step_and_the_gradients_are_the_same(tokenizer, encoded, tmp_path, monkeypatch):
    changes = {"precision": Precision("bf16", ""), "micro_batches": MicroBatches(900, False, "")}
    cleared, clear = [], torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append(1) or clear())
    once = step_gradients(make_trainer(tokenizer, encoded, tmp_path / "once", **changes), encoded[:8])
    n_once = len(cleared)
    monkeypatch.setattr("fgtools.train.trainer.casts_kept", contextlib.nullcontext)
    each = step_gradients(make_trainer(tokenizer, encoded, tmp_path / "each", **changes), encoded[:8])
    assert n_once == 1 and len(cleared) - n_once > 1
    assert once[0] == each[0] and all(torch.equal(once[1][name], each[1][name]) for name in each[1])


def test_a_measured_batch_leaves_nothing_behind(tokenizer, encoded, tmp_path):
    trainer = make_trainer(tokenizer, encoded, tmp_path)
    loss, norm = trainer._measure_batch()
    assert loss > 0 and norm > 0 and trainer._measure_batch() == (loss, norm)
    assert all(weight.grad is None for weight in trainer.model.parameters()) and trainer._window.labels == 0


def test_a_loss_that_is_no_number_stops_the_step(tokenizer, encoded, tmp_path):
    trainer = make_trainer(tokenizer, encoded, tmp_path)
    with torch.no_grad():
        trainer.model.model.embed_tokens.weight[2] = float("nan")
    with pytest.raises(NotFinite, match="the loss is nan at step 1"):
        step_gradients(trainer, encoded[:8])


def test_out_of_memory_does_the_step_again_in_smaller_parts(tokenizer, encoded, tmp_path, capsys):
    wanted_loss, wanted = step_gradients(make_trainer(tokenizer, encoded, tmp_path), encoded[:8])
    trainer = make_trainer(tokenizer, encoded, tmp_path, **CUTS["one micro-batch"])
    plain, calls = trainer.compute_loss, []

    def sometimes(model, inputs, **options):
        calls.append(inputs["input_ids"].numel())
        if calls[-1] > 1500:
            raise torch.OutOfMemoryError("fake")
        return plain(model, inputs, **options)

    trainer.compute_loss = sometimes
    loss, gradients = step_gradients(trainer, encoded[:8])
    assert loss == pytest.approx(wanted_loss, rel=1e-6) and calls[0] > 1500
    assert "out of memory: the step is done again with micro-batches of" in capsys.readouterr().out
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-4, atol=1e-6)
    trainer.compute_loss = lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("always"))
    with pytest.raises(torch.OutOfMemoryError, match="always"):
        step_gradients(trainer, encoded[:8])


def plan(model, encoded, arguments=None, recipe="native", world=1, patience=False):
    return plan_training(arguments or eight_a_step(), get_recipe(recipe), model, encoded, world, patience)


def test_the_plan_says_why(tokenizer, encoded):
    model = tiny_model()
    told = plan(model, encoded).describe()
    assert "engine labelled: logits at labelled positions alone" in told
    assert "precision fp32: no GPU is visible" in told and "activations kept (no checkpointing): a CPU" in told
    tutorial = plan(model, encoded, recipe="tutorial")
    assert tutorial.engine == "trl" and "as in the tutorial" in tutorial.describe()
    assert "asked for by name" in plan(model, encoded, recipe=TRL).describe()
    model.config.final_logit_softcapping = 30.0
    assert "caps its logits" in plan(model, encoded).describe()
    with pytest.raises(TrainingError, match="8 do not among 3"):
        plan(model, encoded, recipe=TRL, world=3)


def test_what_the_trainer_does_otherwise_is_printed(model, encoded):
    assert plan(model, encoded).notes == ()
    chosen = eight_a_step(load_best_model_at_end=True, metric_for_best_model="eval_exact_match")
    assert plan(model, encoded, chosen).metric == "eval_exact_match"
    (note,) = plan(model, encoded, chosen, TRL).notes
    assert note == "metric_for_best_model eval_loss: the engine 'trl' does not count whole rows"
    by_loss = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    (flattered,) = plan(model, encoded, eight_a_step(**by_loss), "tutorial").notes
    assert "so they flatter its scores" in flattered
    unlike = eight_a_step("tutorial", per_device_train_batch_size=8, gradient_accumulation_steps=1)
    (smaller,) = plan(model, encoded, unlike, "tutorial", world=2).notes
    assert smaller == "batches of 4 rows, not 8: a process has 4 rows of a step"


def test_the_best_checkpoint_is_known_where_it_is_wanted(model, encoded):
    assert plan(model, encoded).metric == "eval_choice"
    alone = eight_a_step(load_best_model_at_end=False, metric_for_best_model=None)
    assert plan(model, encoded, alone).metric is None
    assert plan(model, encoded, alone, patience=True).metric == "eval_choice"
    assert plan(model, encoded, alone, TRL, patience=True).metric == "eval_loss"


class Shape:
    """FunctionGemma's."""

    num_hidden_layers, hidden_size, intermediate_size = 18, 640, 2048
    num_attention_heads, num_key_value_heads, head_dim, vocab_size = 4, 1, 256, 262144


def test_checkpointing_only_where_the_longest_row_does_not_fit():
    per_token = estimate_activation_bytes(Shape, 0.07)
    assert 1.2e6 < per_token < 2.2e6  # some 1.2 MB were measured, without the logits
    t4 = choose_micro_batches(Shape, 2048, 0.07, 11 * 2**30)
    assert not t4.checkpointing and 4000 < t4.tokens < 9000
    small = choose_micro_batches(Shape, 2048, 0.07, 2 * 2**30)
    assert small.checkpointing and small.tokens > 2048 and "does not fit without" in small.reason
    assert not choose_micro_batches(Shape, 2048, 0.07, 2 * 2**30, checkpointing=False).checkpointing
    on_cpu = choose_micro_batches(Shape, 2048, 0.07, None)
    assert on_cpu.tokens == CPU_TOKENS and not on_cpu.checkpointing  # a few rows at a time: little padding


def test_the_reason_of_bf16_on_a_cpu_is_the_cpu(monkeypatch):
    monkeypatch.setattr("fgtools.train.plan.choose_cpu_precision", lambda: Precision("bf16", "this CPU can"))
    assert plan_precision(toy_arguments(precision="bf16"), tiny_model()).reason == "this CPU can"
    assert plan_precision(toy_arguments(precision="fp32"), tiny_model()).name == "fp32"
    monkeypatch.setattr("fgtools.train.plan.choose_cpu_precision", lambda: Precision("fp32", "this CPU cannot"))
    assert plan_precision(toy_arguments(precision="bf16"), tiny_model()) == Precision("bf16", "asked for by name")


def test_adapters_start_from_the_same_model_and_are_merged(tokenizer, encoded):
    model = tiny_model()
    ids = torch.tensor([encoded[0].input_ids])
    before = model(ids).logits
    assert add_adapters(model, 0) is model
    adapted = add_adapters(model, 4)
    trainable = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trainable and all("lora_" in name for name in trainable) and not any("lm_head" in name for name in trainable)
    assert torch.allclose(adapted(ids).logits, before)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight += 0.05
    moved = adapted(ids).logits
    merged = merge_adapters(adapted)
    assert (
        merged is model and torch.allclose(merged(ids).logits, moved, atol=1e-3) and not torch.allclose(moved, before)
    )


def test_adapters_without_peft_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match="LORA_RANK needs the package peft"):
        add_adapters(None, 4)


def test_precision_is_what_the_plan_says(tokenizer, encoded, tmp_path):
    trainer = make_trainer(tokenizer, encoded, tmp_path, precision=Precision("bf16", ""))
    seen = []
    trainer.model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    step_gradients(trainer, encoded[:8])
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}


def test_gradients_that_overflow_at_every_scale_end_the_training(tokenizer, encoded, tmp_path, monkeypatch):
    trainer = make_trainer(tokenizer, encoded, tmp_path, toy_arguments(n_rows=12, batch_size=2, epochs=4))
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", property(lambda _: True))
    with pytest.raises(TrainingError, match="gradients overflowed in 12 of 12 steps"):
        trainer.train()


def test_the_scaler_of_fp16_begins_low_and_scales_the_steps_of_the_trainer(tokenizer, encoded, tmp_path, monkeypatch):
    """On a GPU accelerate makes the scaler, with torch's 65,536; here one of the CPU takes its place."""
    create = RestartableTrainer.create_accelerator_and_postprocess

    def create_with_scaler(self):
        create(self)
        self.accelerator.scaler = torch.amp.GradScaler("cpu")

    monkeypatch.setattr(RestartableTrainer, "create_accelerator_and_postprocess", create_with_scaler)
    trainer = make_trainer(tokenizer, encoded, tmp_path, eight_a_step(max_steps=1))
    assert trainer.accelerator.scaler.get_scale() == FIRST_SCALE < 65536
    trainer.train()
    assert trainer.optimizer.scaler is trainer.accelerator.scaler and trainer.updates.count == 1


def test_every_epoch_has_an_order_of_its_own(tokenizer, encoded, tmp_path, monkeypatch):
    arguments = toy_arguments(n_rows=12, batch_size=2, epochs=3)
    orders, plain = [], StepSampler.__iter__
    monkeypatch.setattr(StepSampler, "__iter__", lambda self: orders.append(self.epoch) or plain(self))
    make_trainer(tokenizer, encoded, tmp_path, arguments).train()
    assert orders == [0, 1, 2]


def test_padding_and_speed_are_those_of_the_micro_batches(tokenizer, encoded, tmp_path):
    """One micro-batch is padded to its longest row; row by row there is nothing to pad."""
    for cut, padded in (("one micro-batch", True), ("row by row", False)):
        trainer = make_trainer(tokenizer, encoded, tmp_path, **CUTS[cut])
        step_gradients(trainer, encoded[:8])
        lengths = [len(row.input_ids) for row in encoded[:8]]
        told = trainer._window.describe(trainer.accelerator, trainer.args.device)
        wanted = 1 - sum(lengths) / (8 * max(lengths)) if padded else 0.0
        assert told["padding_share"] == pytest.approx(wanted, abs=1e-12)
        assert trainer._window.tokens == sum(lengths)
        assert told["tokens_per_second"] == pytest.approx(sum(lengths) / trainer._window.seconds)
    assert 1 - sum(lengths) / (8 * max(lengths)) > 0.01


def test_the_data_seed_orders_the_rows(tokenizer, encoded, tmp_path):
    orders = [
        list(make_trainer(tokenizer, encoded, tmp_path, eight_a_step(**seeds)).steps)
        for seeds in ({"seed": 1}, {"seed": 2}, {"seed": 2, "data_seed": 1})
    ]
    assert orders[0] == orders[2] != orders[1]


def test_a_model_with_adapters_is_not_trained_again(tokenizer, encoded, tmp_path):
    model, arguments = tiny_model(), eight_a_step(output_dir=str(tmp_path))
    build_trainer(model, tokenizer, encoded, encoded, arguments, lora_rank=2)
    with pytest.raises(TrainingError, match="must start from a plain model, but this one has adapters: load it again"):
        build_trainer(model, tokenizer, encoded, encoded, arguments, lora_rank=2)


@pytest.mark.parametrize("name", ["patience", "lora_rank"])
def test_a_negative_number_is_named(name, tokenizer, encoded, tmp_path):
    with pytest.raises(TrainingError, match=r"PATIENCE and LORA_RANK must be positive, or 0 for none, got .*-1"):
        build_trainer(tiny_model(), tokenizer, encoded, encoded, eight_a_step(), **{name: -1})
