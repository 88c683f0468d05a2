"""Profiles, recipes and the numbers of a model: what decides where a run happens, and whose number wins."""

import dataclasses
import json

import pytest

from fgtools.models.load import find_model
from fgtools.profiles import (
    PROFILES,
    RECIPES,
    STANDIN_NUMBERS,
    STANDIN_SHAPE,
    adapt_recipe,
    compose_banner,
    fit_recipe,
    get_recipe,
    is_standin,
    resolve_profile,
)


@pytest.mark.parametrize(
    ("capability", "name", "reason"),
    [
        (None, "offline", "no GPU"),
        ((6, 0), "kaggle", "sm_60 has no tensor cores and no bf16"),
        ((7, 5), "kaggle", "sm_75 has tensor cores for fp16 and none for bf16"),
        ((8, 0), "gpu", "sm_80"),
        ((9, 0), "gpu", "sm_90"),
    ],
)
def test_auto_follows_the_compute_capability(capability, name, reason):
    resolved = resolve_profile("auto", capability)
    assert resolved.profile.name == name
    assert reason in resolved.reason


def test_a_profile_asked_for_by_name_is_taken():
    assert resolve_profile("offline", (9, 0)).profile.name == "offline"


@pytest.mark.parametrize("name", ["t4", "", "Offline"])
def test_an_unknown_profile_is_named(name):
    with pytest.raises(ValueError, match=rf"PROFILE must be 'auto' or one of .*got '{name}'"):
        resolve_profile(name, None)


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match=r"RECIPE must be one of \['native', 'tutorial'\], got 'nativ'"):
        get_recipe("nativ")
    assert get_recipe(RECIPES["native"]) is get_recipe("native")


def test_a_parameter_replaces_a_field_of_the_recipe():
    recipe = get_recipe("native")
    assert adapt_recipe(recipe) == recipe
    changed = adapt_recipe(recipe, no_call_share=0.1, over_length="prune", engine="trl", turns="all")
    assert changed == dataclasses.replace(recipe, no_call_share=0.1, over_length="prune", engine="trl", turns="all")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"no_call_share": 1.5}, "NO_CALL_SHARE must lie in [0, 1], or below 0 for the recipe's own, got 1.5"),
        ({"over_length": "trim"}, "OVER_LENGTH must be one of ('reject', 'prune', 'cut'), or '' for the recipe's own"),
        ({"turns": "last"}, "TURNS must be one of ('first', 'all'), or '' for the recipe's own, got 'last'"),
        ({"engine": "fast"}, "ENGINE must be one of ('labelled', 'trl'), or '' for the recipe's own, got 'fast'"),
    ],
)
def test_a_parameter_out_of_its_range_is_named(given, message):
    with pytest.raises(ValueError) as caught:
        adapt_recipe(get_recipe("native"), **given)
    assert message in str(caught.value)


def write_config(folder, **values):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    return str(folder)


def test_the_stand_ins_numbers_are_its_own(tmp_path):
    """3e-3 destroys any other model within a few steps, also on a machine without a GPU."""
    copy = write_config(tmp_path / "tuned", **STANDIN_SHAPE, use_cache=True)
    real = write_config(tmp_path / "real", **{**STANDIN_SHAPE, "hidden_size": 640, "num_hidden_layers": 18})
    for name in ("native", "tutorial"):
        for model in ("standin", copy):
            fitted = fit_recipe(name, model)
            assert (fitted.learning_rate, fitted.epochs, fitted.batch_size, fitted.accumulation_steps) == (
                3e-3,
                2,
                16,
                1,
            )
            assert fitted == dataclasses.replace(RECIPES[name], **STANDIN_NUMBERS)
        for model in (real, "google/functiongemma-270m-it", str(tmp_path / "nothing"), ""):
            assert fit_recipe(name, model) is RECIPES[name]


def test_a_config_that_is_no_json_object_is_not_the_stand_ins(tmp_path):
    for number, text in enumerate(("[]", "{", "null")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config.json").write_text(text)
        assert not is_standin(str(tmp_path / str(number)))


def test_the_shape_is_that_of_the_model_in_the_package():
    assert is_standin(str(find_model("standin")))


def test_a_gguf_file_of_the_stand_ins_shape_is_the_stand_in(tmp_path):
    from fgtools.serve.gguf import write_gguf

    path = str(write_gguf(find_model("standin"), tmp_path / "standin.gguf", "q8_0").path)
    assert is_standin(path) and fit_recipe("native", path).learning_rate == 3e-3
    assert compose_banner(path, "rows.jsonl").startswith("offline stand-in: a toy model")
    content = (tmp_path / "standin.gguf").read_bytes()
    for number, other in enumerate(
        (content.replace(b"\x06\0\0\0\0\0\0\0gemma3", b"\x06\0\0\0\0\0\0\0llama3"), content[:2000], b"")
    ):
        (tmp_path / f"{number}.gguf").write_bytes(other)
        assert not is_standin(str(tmp_path / f"{number}.gguf"))
    assert not is_standin("owner/name:standin.gguf") and not is_standin(str(tmp_path / "gone.gguf"))


def test_the_banner_says_what_is_true(tmp_path):
    real = write_config(tmp_path / "real", hidden_size=640)
    both = "offline stand-in: a toy model on generated rows; the figures say nothing about FunctionGemma"
    assert compose_banner("standin", "sample") == both
    assert compose_banner("standin", "rows.jsonl") == both.replace(" on generated rows", "")
    assert compose_banner(real, "sample") == "generated rows: the figures say nothing about real requests"
    assert compose_banner(real, "rows.jsonl") == ""


def test_the_tutorial_is_the_tutorials():
    recipe = RECIPES["tutorial"]
    assert (recipe.learning_rate, recipe.epochs, recipe.batch_size, recipe.accumulation_steps) == (5e-5, 1, 2, 8)
    assert (recipe.max_length, recipe.warmup_fraction, recipe.scheduler) == (512, 0.03, "cosine")
    assert (recipe.log_steps, recipe.eval_steps, recipe.engine, recipe.loss) == (10, 10, "trl", "all")
    assert recipe.gradient_checkpointing and (recipe.tokens_before, recipe.tokens_after) == (128, 64)


def test_a_place_sets_no_number_of_a_training():
    shared = {field.name for field in dataclasses.fields(PROFILES["offline"])}
    assert not shared & {field.name for field in dataclasses.fields(RECIPES["native"])} - {"name"}


def test_the_tutorial_takes_one_call_of_a_conversation():
    assert adapt_recipe(RECIPES["tutorial"], turns="first") == RECIPES["tutorial"]
    with pytest.raises(ValueError, match="TURNS = 'all' needs the native recipe"):
        adapt_recipe(RECIPES["tutorial"], turns="all")
