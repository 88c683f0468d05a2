"""Profiles and recipes: what decides where a run happens, and whose number wins."""

import pytest

from fgtools.profiles import PROFILES, RECIPES, build_training, get_recipe, resolve_profile


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


def test_the_tutorial_trains_as_the_tutorial_says():
    training = build_training(PROFILES["kaggle"], RECIPES["tutorial"], seed=40)
    assert (training.learning_rate, training.epochs, training.batch_size, training.accumulation_steps) == (
        5e-5,
        1,
        2,
        8,
    )
    assert training.gradient_checkpointing and training.warmup_fraction == 0.03
    assert RECIPES["tutorial"].max_length == 512


def test_parameter_beats_profile_beats_recipe():
    offline, native = PROFILES["offline"], RECIPES["native"]
    assert build_training(offline, native, seed=1).learning_rate == offline.learning_rate
    assert build_training(offline, native, seed=1, learning_rate=1e-4, epochs=1, batch_size=8).learning_rate == 1e-4
    assert build_training(offline, native, seed=1, batch_size=8).accumulation_steps == 1
    assert build_training(PROFILES["gpu"], native, seed=1).learning_rate == native.learning_rate


def test_a_negative_number_is_named():
    with pytest.raises(ValueError, match="EPOCHS must be positive, or 0 for the profile's own, got -1"):
        build_training(PROFILES["offline"], RECIPES["native"], seed=1, epochs=-1)
