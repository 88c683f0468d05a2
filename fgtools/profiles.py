"""Every number of a run that is not TRL's own default, in one place, with its reason.

The profile says where a run happens, the recipe how it treats data, loss and format; a few numbers belong to a model,
wherever it runs. What a field means stands in its class's docstring, why it has its value beside the value. A notebook
parameter of the same name in capitals overrides it; what stays the same in every run is a constant.
Knows no torch and no room but files; reads a model's config.json or GGUF header, and whether real.json is beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgtools.files import InputError
from fgtools.gguf import read_gguf

DEVELOPER_TEXT = "You are a model that can do function calling with the following functions"
"""The sentence that switches FunctionGemma to calling tools; the template does not add it (FunctionGemma formatting
guide)."""


@dataclass(frozen=True)
class Recipe:
    """How rows become prompts, labels and scores.

    Attributes:
        name: "native" or "tutorial".
        call_style: Grammar of the target: "native" (one `key:value` per argument) or "tutorial" (one JSON string
            named args).
        loss: "completion" trains the reply alone, "all" the whole text.
        split: "group" keeps a (request, tools) pair on one side, "rows" splits shuffled rows as they come.
        unseen_fraction: Share of the rows whose tools are kept out of training, in [0, 1); needs split "group".
        turns: Which answers of a conversation become rows: "first", its first call or else its last answer; "all",
            every call and every answer to a request without a call, with the turns before it, results included.
        keep_no_call: Whether rows whose right answer is no call are trained and scored.
        no_call_share: Largest share of training rows that may be no-call rows, in [0, 1].
        no_call_target: "reply" trains the row's own text, "stop" the stop token alone.
        no_call_limit: Characters of that text that are kept, in whole sentences; 0 keeps all.
        keep_null_arguments: Whether a null argument stays in a call where it says no more than its absence (see
            `schema.nulls`).
        apply_remedies: Whether what the chat template hides of a tool is shown in another way (see `remedies`).
        over_length: What happens to a row over the budget: "reject" drops the oldest turns of its context, and counts
            and leaves out what still does not fit; "prune" drops declarations of tools that are not called before it
            gives a row up; "cut" cuts it silently at the end.
        max_length: Budget of one training text, in tokens.
        learning_rate: Peak learning rate.
        epochs: Passes over the training rows.
        batch_size: Rows of a micro-batch where the trainer does not cut steps by tokens itself.
        accumulation_steps: Such micro-batches per optimizer step: together they say how many rows a step has.
        warmup_fraction: Share of the steps with rising learning rate, in [0, 1).
        warmup_from_zero: Whether step k of w warm-up steps, from 0, has the share k / w of the peak, as transformers'
            schedules do, so that the first step changes nothing; where it is False the share is (k + 1) / (w + 1).
        fewest_steps: Optimizer steps below which passes are added and steps get smaller (train.fit_steps); 0: never.
        scheduler: Shape of the learning rate over the steps, by its name in transformers.
        gradient_checkpointing: Whether activations are always recomputed in the backward pass, to save memory; where
            it is False they are recomputed only when the longest row does not fit otherwise.
        engine: How gradients are computed: "labelled" (logits at labelled positions alone, steps cut by tokens) or
            "trl" (TRL's own loss and batches).
        master_weights: "fp32": weights are trained in fp32, whatever they were loaded in; "as loaded": as they are.
        log_steps: Optimizer steps between entries of the log; None: about LOG_ENTRIES entries in one training.
        eval_steps: Optimizer steps between evaluations; None: about EVALUATIONS in one training, spread evenly.
        choose_best: Whether the checkpoint that is saved is the best one on the held-out rows, not the last.
        tokens_before: New tokens allowed in the baseline; None: from the longest gold.
        tokens_after: New tokens allowed after training; None: the same number as before.
    """

    name: str
    call_style: str
    loss: str
    split: str
    unseen_fraction: float
    turns: str
    keep_no_call: bool
    no_call_share: float
    no_call_target: str
    no_call_limit: int
    keep_null_arguments: bool
    apply_remedies: bool
    over_length: str
    max_length: int
    learning_rate: float
    epochs: float
    batch_size: int
    accumulation_steps: int
    warmup_fraction: float
    warmup_from_zero: bool
    fewest_steps: int
    scheduler: str
    gradient_checkpointing: bool
    engine: str
    master_weights: str
    log_steps: int | None
    eval_steps: int | None
    choose_best: bool
    tokens_before: int | None
    tokens_after: int | None

    def __str__(self) -> str:
        return self.name


TURNS = ("first", "all")  # which answers of a conversation may become rows; see Recipe
OVER_LENGTH = ("reject", "prune", "cut")  # what may happen to a row over the budget; see Recipe
ENGINES = ("labelled", "trl")  # how gradients may be computed; see Recipe
PRECISIONS = ("fp32", "bf16", "fp16")  # number formats a training may compute in
GGUF_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Number formats of weights that the package gguf can write, the most exact first; quantised ones (q) hold blocks of 32
numbers with a scale each."""

RECIPES = {
    "native": Recipe(
        name="native",
        call_style="native",
        loss="completion",
        split="group",
        unseen_fraction=0.05,  # enough rows to tell what was learnt from what was memorized
        turns="first",  # most of what "all" adds to real conversations is small talk: docs/conversations.md
        keep_no_call=True,
        no_call_share=0.3,  # enough to learn restraint; more would starve the calls
        no_call_target="reply",  # the base model answers in words when no tool fits; an empty reply would unlearn that
        no_call_limit=300,  # a refusal says itself in a sentence or two; essays would outweigh the calls in the loss
        keep_null_arguments=False,  # no engine reads FunctionGemma's None: docs/serving.md; absence they all read
        apply_remedies=True,  # both remedies are undone without loss; a hidden parameter cannot be learnt
        over_length="reject",  # every row keeps all its tools: fewer would be an easier question than the user's
        max_length=2048,  # 1,024 keeps 92 % of real rows whole, 2,048 keeps 99 %
        learning_rate=5e-5,
        epochs=2,
        batch_size=4,
        accumulation_steps=4,
        warmup_fraction=0.03,
        warmup_from_zero=False,  # of a few steps, one that changes nothing is a large share
        fewest_steps=60,  # about what Google's guide takes for its 40 rows; measured in docs/training.md
        scheduler="cosine",
        gradient_checkpointing=False,  # it costs a third more work, and a T4 holds some 8,000 tokens without
        engine="labelled",  # 7 % of the positions carry a label, and logits are 60 % of the forward pass
        master_weights="fp32",  # at 5e-5, about half of the updates of bf16 weights round to nothing
        log_steps=None,
        eval_steps=None,
        choose_best=True,  # the loss keeps falling where whole calls no longer get better
        tokens_before=None,
        tokens_after=None,
    ),
    "tutorial": Recipe(
        name="tutorial",
        call_style="tutorial",
        loss="all",
        split="rows",
        unseen_fraction=0.0,
        turns="first",
        keep_no_call=False,
        no_call_share=0.0,
        no_call_target="stop",
        no_call_limit=0,
        keep_null_arguments=True,
        apply_remedies=False,
        over_length="cut",
        max_length=512,
        learning_rate=5e-5,
        epochs=1,
        batch_size=2,
        accumulation_steps=8,
        warmup_fraction=0.03,
        warmup_from_zero=True,
        fewest_steps=0,
        scheduler="cosine",
        gradient_checkpointing=True,
        engine="trl",
        master_weights="as loaded",
        log_steps=10,
        eval_steps=10,
        choose_best=False,
        tokens_before=128,
        tokens_after=64,
    ),
}


def get_recipe(recipe: str | Recipe) -> Recipe:
    """Return the recipe of a name, or the recipe itself.

    Args:
        recipe: "native", "tutorial" or a Recipe.

    Raises:
        ValueError: The name is not one of RECIPES.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(
            f"RECIPE must be one of {sorted(RECIPES)}, got {recipe!r}: use 'native' unless you mean to reproduce the "
            "tutorial"
        )
    return RECIPES[recipe]


def adapt_recipe(
    recipe: Recipe, no_call_share: float = -1.0, over_length: str = "", engine: str = "", turns: str = ""
) -> Recipe:
    """Return a recipe, under its own name, with parameters in place of some of its fields.

    Args:
        recipe: The recipe.
        no_call_share: Largest share of no-call rows in training, in [0, 1]; below 0 leaves the recipe's.
        over_length: "reject", "prune" or "cut"; "" leaves the recipe's.
        engine: "labelled" or "trl"; "" leaves the recipe's.
        turns: "first" or "all"; "" leaves the recipe's. The tutorial's recipe takes the first alone.

    Raises:
        ValueError: A value is out of its range.
    """
    if no_call_share > 1.0:
        raise InputError(f"NO_CALL_SHARE must lie in [0, 1], or below 0 for the recipe's own, got {no_call_share}")
    if over_length not in ("", *OVER_LENGTH):
        raise InputError(f"OVER_LENGTH must be one of {OVER_LENGTH}, or '' for the recipe's own, got {over_length!r}")
    if engine not in ("", *ENGINES):
        raise InputError(f"ENGINE must be one of {ENGINES}, or '' for the recipe's own, got {engine!r}")
    if turns not in ("", *TURNS):
        raise InputError(f"TURNS must be one of {TURNS}, or '' for the recipe's own, got {turns!r}")
    if turns == "all" and recipe.call_style == "tutorial":
        raise InputError("TURNS = 'all' needs the native recipe: the tutorial trains on one call of a conversation")
    return replace(
        recipe,
        turns=turns or recipe.turns,
        engine=engine or recipe.engine,
        no_call_share=recipe.no_call_share if no_call_share < 0 else no_call_share,
        over_length=over_length or recipe.over_length,
    )


FUNCTIONGEMMA = "google/functiongemma/transformers/functiongemma-270m-it"  # the kagglehub handle of the series' model
HERMES = "interstellarninja/hermes_reasoning_tool_use"  # the tutorial's data set on the hub (Apache-2.0, 51,004 rows)
SAMPLE = "sample"  # what DATA calls the generated rows that come with the package
REAL = "real"  # what MODEL calls Gemma 3 270M, fetched and built by `run`: docs/real.md
REAL_MARK = "real.json"  # the file of that model's folder that says what it was built from
STANDIN = "standin"  # what MODEL calls the small model that comes with the package

STANDIN_SHAPE = {"model_type": "gemma3_text", "hidden_size": 96, "num_hidden_layers": 6, "vocab_size": 2680}
"""What its config.json says; a folder with the same values holds the stand-in, or a tuned copy of it."""

STANDIN_NUMBERS: dict[str, Any] = {
    "learning_rate": 3e-3,  # the stand-in is some 280 times smaller than FunctionGemma: 5e-5 would not move it
    "epochs": 2,  # four gained nothing that 300 rows show: docs/standin.md
    "batch_size": 16,  # rows of a step; how many are computed at once is planned from the lengths
    "accumulation_steps": 1,
    "gradient_checkpointing": False,  # its activations fit any memory
}
"""Fields of a Recipe that the stand-in replaces, wherever it runs; they would ruin any other model."""


REAL_NUMBERS: dict[str, Any] = {
    "N_EVAL": 70,  # the rows that are marked for it
    "EPOCHS": 4,  # what so few rows get by default
    "TUTORIAL_ROWS": 0,  # the base model never ends a reply, so the tutorial's protocol costs minutes and shows 0
}
"""Parameters of the notebooks on the real rows that come with the package, where they are not given."""


def is_standin(model: str) -> bool:
    """Return whether MODEL names the stand-in, or a folder or GGUF file that holds a model of its shape."""
    if model == STANDIN:
        return True
    try:
        is_gguf, file = model.lower().endswith(".gguf"), Path(model, "config.json")
        config = _read_gguf_shape(Path(model)) if is_gguf else json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # none, or not JSON or GGUF: loading it will say so
        return False
    return isinstance(config, dict) and all(config.get(name) == value for name, value in STANDIN_SHAPE.items())


def _read_gguf_shape(path: Path) -> dict[str, Any]:
    """Return what a GGUF file says of STANDIN_SHAPE's fields."""
    said = read_gguf(path).metadata
    names = ("general.architecture", "gemma3.embedding_length", "gemma3.block_count", "tokenizer.ggml.tokens")
    kind, hidden_size, n_layers, tokens = map(said.get, names)
    values = f"{kind}_text", hidden_size, n_layers, len(tokens or ())
    return dict(zip(STANDIN_SHAPE, values, strict=True))


def fit_recipe(recipe: str | Recipe, model: str) -> Recipe:
    """Return a recipe as it is, or for the stand-in with STANDIN_NUMBERS in place of its own numbers.

    Args:
        recipe: "native", "tutorial" or a Recipe.
        model: What MODEL names.
    """
    return replace(get_recipe(recipe), **STANDIN_NUMBERS) if is_standin(model) else get_recipe(recipe)


def compose_banner(model: str, data: str) -> str:
    """Return what the figures of a run must be read with: a toy model, a base model, generated rows; "" for nothing.

    Args:
        model: What MODEL names.
        data: What DATA names.
    """
    if (Path(model) / REAL_MARK).is_file():
        return "Gemma 3 270M, a base model from 4-bit weights, not FunctionGemma: it knew no calls before"
    if is_standin(model):
        rows = " on generated rows" if data == SAMPLE else ""
        return f"offline stand-in: a toy model{rows}; the figures say nothing about FunctionGemma"
    return "generated rows: the figures say nothing about real requests" if data == SAMPLE else ""


@dataclass(frozen=True)
class Profile:
    """Where a run happens, and what that place can carry.

    Attributes:
        name: "offline", "kaggle" or "gpu".
        data: What DATA means when it is not given: "sample", a hub data set id or a path.
        model: What MODEL means when it is not given: "standin", a kagglehub handle, a hub id or a folder.
    """

    name: str
    data: str
    model: str


PROFILES = {
    "offline": Profile(name="offline", data=SAMPLE, model=STANDIN),
    "kaggle": Profile(name="kaggle", data=HERMES, model=FUNCTIONGEMMA),
    "gpu": Profile(name="gpu", data=HERMES, model=FUNCTIONGEMMA),
}


@dataclass(frozen=True)
class ResolvedProfile:
    """A profile and the reason why it was taken."""

    profile: Profile
    reason: str


def fastest_format(capability: tuple[int, int] | None) -> tuple[str, str]:
    """Return the number format in which a device multiplies matrices fastest.

    The only place where a compute capability is compared with anything.

    Args:
        capability: CUDA compute capability of a GPU, such as (7, 5) for a T4; None without a GPU.

    Returns:
        "fp32", "bf16" or "fp16", and the fact it rests on.
    """
    if capability is None:
        return "fp32", "no GPU is visible"
    name = f"sm_{capability[0]}{capability[1]}"
    if capability >= (8, 0):
        return "bf16", f"{name} computes in bf16"
    if capability >= (7, 0):
        return "fp16", f"{name} has tensor cores for fp16 and none for bf16"
    return "fp32", f"{name} has no tensor cores and no bf16"


def resolve_profile(name: str, capability: tuple[int, int] | None) -> ResolvedProfile:
    """Return where a run happens, and why.

    Args:
        name: "auto", "offline", "kaggle" or "gpu".
        capability: CUDA compute capability of the first visible GPU, such as (7, 5) for a T4; None without a GPU.

    Raises:
        ValueError: The name is unknown.
    """
    if name in PROFILES:
        return ResolvedProfile(PROFILES[name], "asked for by name")
    if name != "auto":
        raise InputError(f"PROFILE must be 'auto' or one of {sorted(PROFILES)}, got {name!r}")
    fastest, fact = fastest_format(capability)
    if capability is None:
        return ResolvedProfile(PROFILES["offline"], fact)
    return ResolvedProfile(PROFILES["gpu" if fastest == "bf16" else "kaggle"], f"a GPU is visible: {fact}")


# What stays the same in every run.
CHOOSING_ROWS, CHOOSING_FRACTION = 100, 0.1  # training rows held out to choose the checkpoint by: so many, this share
FEWEST_CHOOSING_ROWS = 10  # rows to choose by; with fewer, one lucky row decides, so all train and the last is saved
FEW_ROWS_EPOCHS = 8  # passes at most where steps are few: Google's guide makes as many over its 40 rows
FEW_ROWS_A_STEP = 4  # rows of a step at least where steps are few: as many as Google's guide has
CONFIRMED_ROWS = 64  # held-out rows that the best and the last checkpoint answer by generating, to confirm the choice
EVALUATIONS, EVALUATION_STEPS = 6, 10  # of one training, about; steps between two at least, since one costs two steps
LOG_ENTRIES = 100  # entries of the log of one training, about
KEPT_CHECKPOINTS = 2  # checkpoints on disk during a training: the newest, and the one before it should that be damaged
CHECKPOINT_SHARE, CHECKPOINT_PAUSE = 0.05, 60  # writing checkpoints: share of the time at most, seconds between two
CHEAP_CHECKPOINT_BYTES, DISK_BYTES_PER_SECOND = 2**26, 200e6  # written at every evaluation; a disk not yet measured
LORA_LEARNING_RATE = 2e-4  # of an adapter, which starts from zero: official recipes take 1e-4 to 2e-4
FIRST_STEPS = 20  # steps within which an fp16 loss that is not finite makes the training start again in fp32
MEASURED_ROWS = 4  # shortest rows of a training, by which fused kernels are compared with plain ones before it starts
FIRST_SCALE = 2048.0  # of fp16's scaler; torch's 65,536 overflows on Gemma 3 270M, and its first steps are skipped
SKIPPED_STEPS = 12  # steps fp16's scaler may skip: it is then down from 2,048 to 0.5, and gradients still overflow
DIVERGED_NATS, DIVERGED_SHARE = 0.5, 0.25  # a loss higher than its start by more has left it: train/divergence.py
DIVERGED_STEPS, DIVERGED_FEWEST_STEPS = 0.1, 10  # a training that stays there for so much of its steps is stopped
REAL_PARAMETERS = 50_000_000  # of a model whose training takes so long that its time is estimated before it starts
WINDOW_STEPS = 16  # steps whose rows are sorted by length together: of 256 rows at 16 a step, some 4 % is padding
REPLY_MARGIN, REPLY_STEP = 0.25, 16  # a reply's budget: the longest gold and this share, up to a multiple of 16 tokens
PROTOCOL_ROWS = 50  # of the tutorial's evaluation, whose budgets are its recipe's tokens_before and tokens_after
