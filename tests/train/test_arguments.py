"""The numbers of a training: a plain SFTConfig whose every value holds, or is refused by name."""

import copy
import json

import pytest
import torch
from trl import SFTConfig

from fgtools.__main__ import main
from fgtools.files import write_jsonl
from fgtools.models import save_model
from fgtools.models.device import Precision
from fgtools.profiles import PROFILES, STANDIN_NUMBERS, ResolvedProfile, get_recipe
from fgtools.run.settings import SourceOptions, build_settings
from fgtools.run.training import ROWS
from fgtools.train import (
    TrainingError,
    describe_arguments,
    parse_arguments,
    summarize_arguments,
    training_arguments,
)
from fgtools.train.arguments import SHOWN, check_arguments, deciding_values, rows_per_step
from fgtools.train.plan import MicroBatches, Plan, translate_arguments
from fgtools.train.saving import Saving
from tests.toys import small_rows, tiny_model, toy_arguments


def shown(arguments, *names):
    return {name: summarize_arguments(arguments)[name] for name in names}


def test_the_tutorials_sixteen_values_are_there():
    wanted = {
        **{"num_train_epochs": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
        **{"learning_rate": 5e-5, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, "max_length": 512},
        **{"packing": False, "optim": "adamw_torch_fused", "logging_steps": 10, "eval_strategy": "steps"},
        **{"eval_steps": 10, "report_to": [], "fp16": False, "bf16": False, "gradient_checkpointing": True},
    }
    arguments = training_arguments("tutorial", n_rows=961)
    assert type(arguments) is SFTConfig and len(wanted) == 16
    assert shown(arguments, *wanted) == wanted
    assert not arguments.load_best_model_at_end and arguments.metric_for_best_model is None


@pytest.mark.parametrize(
    ("capability", "asked", "bf16", "fp16"),
    [
        ((8, 0), "auto", True, False),
        ((7, 5), "auto", False, True),
        ((6, 0), "auto", False, False),
        (None, "auto", False, False),
        (None, "bf16", True, False),
        (None, "fp16", False, True),
        (None, "fp32", False, False),
    ],
)
def test_the_precision_is_that_of_the_gpu_or_the_one_asked_for(capability, asked, bf16, fp16, monkeypatch):
    monkeypatch.setattr("fgtools.train.arguments.detect_capability", lambda: capability)
    if capability is not None:
        monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    arguments = training_arguments(precision=asked)
    assert (arguments.bf16, arguments.fp16, arguments.use_cpu) == (bf16, fp16, capability is None)


def test_a_cpu_that_multiplies_bf16_trains_real_models_in_it_and_nothing_else(monkeypatch):
    monkeypatch.setattr("fgtools.train.arguments.choose_cpu_precision", lambda: Precision("bf16", "this CPU can"))
    assert training_arguments("native", model="my/model").bf16
    assert not training_arguments("native", model="my/model", precision="fp32").bf16
    assert not training_arguments("native", model="standin").bf16
    assert not training_arguments("tutorial", model="my/model").bf16
    monkeypatch.setattr("fgtools.train.arguments.detect_capability", lambda: (6, 0))
    assert not training_arguments("native", model="my/model").bf16


def test_the_numbers_of_the_stand_in_are_its_own(tmp_path):
    """Also in profile offline: real weights in a folder train at the recipe's rate."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text", "hidden_size": 640}))
    offline = ResolvedProfile(PROFILES["offline"], "no GPU")
    for model, rate, epochs, batches in (("", 3e-3, 2, (16, 1)), (str(tmp_path), 5e-5, 2, (4, 4))):
        settings = build_settings(offline, "native", "", model, 7, 100, 10, SourceOptions())
        arguments = training_arguments(settings)
        assert (arguments.learning_rate, arguments.num_train_epochs, arguments.seed) == (rate, epochs, 7)
        assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == batches
        assert arguments.per_device_eval_batch_size == batches[0]


def test_real_weights_without_a_gpu_train_at_the_recipes_rate(tokenizer, tmp_path):
    """A Gemma 3 of another shape, trained through the command in profile offline."""
    model = tiny_model()
    config = copy.deepcopy(model.config)
    config.hidden_size, config.num_hidden_layers, config.layer_types = 32, 2, config.layer_types[:2]
    save_model(type(model)(config), tokenizer, tmp_path / "real")
    rows = small_rows(80, 20)
    for name, side in zip(ROWS, (rows[:16], rows[16:]), strict=True):
        write_jsonl(tmp_path / "rows" / name, side)
    words = ["--rows", str(tmp_path / "rows"), "--model", str(tmp_path / "real"), "--profile", "offline"]
    assert main(["train", *words, "--out", str(tmp_path / "out"), "--ignore-audit"]) == 0
    told = json.loads((tmp_path / "out" / "train.json").read_text())
    assert (told["arguments"]["learning_rate"], told["arguments"]["num_train_epochs"]) == (5e-5, 8)  # few rows
    assert max(entry.get("learning_rate", 0) for entry in told["history"]) <= 5e-5
    settings = build_settings(
        ResolvedProfile(PROFILES["offline"], ""), "native", "", str(tmp_path / "real"), 1, 100, 10, SourceOptions()
    )
    assert "stand-in" not in settings.banner and "generated rows" in settings.banner


def test_a_parameter_beats_the_model_beats_the_recipe():
    given = training_arguments(model="standin", learning_rate=1e-4, epochs=1, batch_size=8, max_length=700)
    assert (given.learning_rate, given.num_train_epochs, rows_per_step(given), given.max_length) == (1e-4, 1, 8, 700)
    assert given.gradient_accumulation_steps == 1
    assert training_arguments(model="standin").learning_rate == STANDIN_NUMBERS["learning_rate"]
    recipe = get_recipe("native")
    plain = training_arguments(recipe)
    assert (plain.learning_rate, plain.num_train_epochs) == (recipe.learning_rate, recipe.epochs)
    assert (rows_per_step(plain), plain.max_length, plain.warmup_steps) == (16, recipe.max_length, 0.03)
    assert training_arguments(lora_rank=8).learning_rate == 2e-4
    assert training_arguments(lora_rank=8, learning_rate=1e-3).learning_rate == 1e-3
    assert training_arguments(lora_rank=8, model="standin").learning_rate == 3e-3


@pytest.mark.parametrize("name", ["learning_rate", "epochs", "batch_size", "max_length", "lora_rank"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_a_number_that_makes_no_sense_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name.upper()} must be positive, or 0 for the recipe's own, got {value}"):
        training_arguments(**{name: value})


@pytest.mark.parametrize(
    ("n_rows", "steps"),
    [(2700, (3, 57)), (16, (1, 10)), (200, (1, 11)), (60, (1, 11)), (None, (10, 10))],
)
def test_logging_and_evaluations_are_spread_over_the_training(n_rows, steps):
    arguments = training_arguments(n_rows=n_rows)
    assert (arguments.logging_steps, arguments.eval_steps) == steps
    tutorial = training_arguments("tutorial", n_rows=n_rows)
    assert (tutorial.logging_steps, tutorial.eval_steps) == (10, 10)


def test_arguments_go_through_json_and_back(tmp_path):
    arguments = training_arguments("tutorial", n_rows=100, output_dir=tmp_path)
    arguments.weight_decay, arguments.lr_scheduler_type, arguments.hub_token = 0.1, "linear", "hf_secret"
    arguments.gradient_checkpointing = False
    text = json.dumps(describe_arguments(arguments))
    assert "hf_secret" not in text and "token" not in text.replace("tokens", "").replace("include_num_input", "")
    again = parse_arguments(json.loads(text))
    assert describe_arguments(again) == describe_arguments(arguments)
    assert (again.weight_decay, again.lr_scheduler_type.value, again.output_dir) == (0.1, "linear", str(tmp_path))
    assert again.gradient_checkpointing is False
    with pytest.raises(TrainingError, match=r"must be fields of trl.SFTConfig, but 'learning_rat' is none"):
        parse_arguments({"learning_rat": 1})
    with pytest.raises(TrainingError, match=r"must hold together, but TRL says: .*linaer"):
        parse_arguments({"output_dir": "o", "lr_scheduler_type": "linaer", "use_cpu": True})


def test_what_is_shown_is_described(tmp_path):
    arguments = training_arguments()
    described = describe_arguments(arguments)
    assert summarize_arguments(arguments) == {name: described[name] for name in SHOWN}


UNREAD = [
    *((engine, "packing", True) for engine in ("labelled", "trl")),
    *((engine, "completion_only_loss", True) for engine in ("labelled", "trl")),
    *((engine, "eos_token", "<eos>") for engine in ("labelled", "trl")),
    *((engine, "save_only_model", True) for engine in ("labelled", "trl")),
    ("labelled", "label_smoothing_factor", 0.1),
    ("labelled", "loss_type", "dft"),
    ("labelled", "dataloader_drop_last", True),
    ("labelled", "train_sampling_strategy", "group_by_length"),
]


@pytest.mark.parametrize(("engine", "name", "value"), UNREAD)
def test_a_value_that_no_trainer_would_read_is_refused(engine, name, value):
    arguments = training_arguments()
    setattr(arguments, name, value)
    with pytest.raises(TrainingError, match=f"{name} must stay .*, got {value!r}: "):
        check_arguments(arguments, engine)


def test_a_misspelt_name_is_refused():
    arguments = training_arguments()
    arguments.learning_rates = 1e-4
    with pytest.raises(TrainingError, match="have no field 'learning_rates': check its spelling"):
        check_arguments(arguments, "labelled")


def test_values_that_contradict_each_other_are_refused():
    arguments = training_arguments()
    arguments.metric_for_best_model = "eval_loss"
    with pytest.raises(TrainingError, match="greater_is_better must be False for 'eval_loss', got True"):
        check_arguments(arguments, "labelled")
    arguments.greater_is_better = False
    check_arguments(arguments, "labelled")
    arguments.save_steps = arguments.eval_steps + 1
    with pytest.raises(TrainingError, match=r"must hold together, but TRL says: .*round multiple"):
        check_arguments(arguments, "labelled")


def test_both_names_of_checkpointing_must_agree():
    arguments = training_arguments()
    arguments.gradient_checkpointing = True
    assert check_arguments(arguments, "labelled").gradient_checkpointing is True
    if hasattr(arguments, "activation_checkpointing"):
        arguments.activation_checkpointing = False
        with pytest.raises(TrainingError, match="must be the same, got True and False: set both"):
            check_arguments(arguments, "labelled")


def test_a_check_does_not_change_what_it_is_given():
    arguments = training_arguments()
    before = dict(vars(arguments))
    copy = check_arguments(arguments, "labelled")
    assert copy is not arguments and vars(arguments) == before


def test_names_and_places_decide_no_weight(tmp_path):
    one = training_arguments(output_dir=tmp_path)
    two = training_arguments(output_dir="elsewhere")
    two.run_name, two.report_to, two.hub_model_id, two.disable_tqdm = "x", ["tensorboard"], "a/b", not one.disable_tqdm
    assert deciding_values(one) == deciding_values(two)
    for name, value in (("weight_decay", 0.1), ("seed", 2), ("eval_steps", 7), ("max_grad_norm", 0.5), ("bf16", True)):
        other = training_arguments()
        setattr(other, name, value)
        assert deciding_values(other) != deciding_values(one), name


def plan(engine="labelled", precision="fp32", world=1, metric="eval_choice", checkpointing=False):
    micro = MicroBatches(100, checkpointing, "")
    return Plan(engine, "", Precision(precision, ""), micro, world, metric, Saving("evaluation", 1, ""))


@pytest.mark.parametrize(
    ("engine", "world", "size", "accumulation"),
    [("labelled", 1, 16, 1), ("labelled", 2, 8, 1), ("labelled", 3, 6, 1), ("trl", 1, 4, 4), ("trl", 2, 4, 2)],
)
def test_processes_share_out_the_rows_of_a_step(engine, world, size, accumulation):
    arguments = training_arguments()
    inner = translate_arguments(arguments, plan(engine, world=world), resumed=False)
    assert (inner.per_device_train_batch_size, inner.gradient_accumulation_steps) == (size, accumulation)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (4, 4)


def test_what_transformers_reads_does_what_the_arguments_say():
    arguments = training_arguments(max_length=300)
    arguments.weight_decay, arguments.lr_scheduler_type = 0.25, "linear"
    inner = translate_arguments(arguments, plan(checkpointing=True), resumed=False)
    assert (inner.weight_decay, inner.lr_scheduler_type.value, inner.eval_on_start) == (0.25, "linear", True)
    assert (inner.max_length, inner.load_best_model_at_end, inner.gradient_checkpointing) == (None, False, True)
    assert getattr(inner, "activation_checkpointing", True) is True
    assert (inner.metric_for_best_model, inner.greater_is_better) == ("eval_choice", True)
    assert translate_arguments(arguments, plan(), resumed=True).eval_on_start is False
    trl = translate_arguments(arguments, plan("trl", metric="eval_loss"), resumed=False)
    assert (trl.metric_for_best_model, trl.greater_is_better) == ("eval_loss", False)
    assert translate_arguments(arguments, plan(metric=None), resumed=False).metric_for_best_model is None


@pytest.mark.parametrize(("engine", "bf16"), [("labelled", False), ("trl", True)])
def test_the_labelled_engine_casts_by_itself(engine, bf16):
    assert translate_arguments(toy_arguments(), plan(engine, "bf16"), resumed=False).bf16 is bf16
    assert translate_arguments(toy_arguments(), plan(engine, "fp16"), resumed=False).fp16 is False  # no scaler on a CPU
    assert torch.get_default_dtype() == torch.float32
