"""The model card: what a run says of itself, and nothing of the machine it ran on."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from fgtools.metrics import compare, score
from fgtools.report.card import MAX_NAMES, NEEDED, render_card
from tests.report.four_rows import RIGHT, ROWS, WRONG


@pytest.fixture(scope="module")
def comparison():
    return compare(score(ROWS, WRONG), score(ROWS, RIGHT))


def facts(comparison):
    run = {"model": "a/b", "data": "sample", "recipe": "native", "dtype": "torch.float32"}
    training = {name: 1 for name in ("n_train", "n_too_long", "steps", "tokens", "label_tokens", "learning_rate")}
    training |= {"precision": "fp32", "choose_best": True, "saved_step": 77, "n_eval": 12}
    training |= {name: 1 for name in ("epochs", "batch_size", "accumulation_steps", "seed")}
    return {
        "run": {**run, "environment": {"torch": "2.13.0"}},
        "funnel": {"rows_in": 4, "origin": "offline sample", "funnel": {"kept": 4}, "split": {"train": 2, "eval": 2}},
        "train": training,
        "compare": json.loads(json.dumps(comparison.to_dict())),
    }


def test_the_card_holds_counts_caveat_and_metadata(comparison):
    card = render_card(facts(comparison), "you/model", "offline stand-in")
    assert "# you/model" in card and "> **offline stand-in**" in card
    assert "4/4 = 100.0%" in card and comparison.verdict in card and "torch 2.13.0" in card
    assert "| kept | 4 | 100.0% |" in card and "Split: train 2, eval 2." in card
    assert "TC-CER is its error rate, but with the gold in the notation that the model was taught" in card


def metadata(card):
    """Parse the YAML block in front of a card, and check the form that the hub asks for."""
    start, block, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(block)


def test_the_metadata_is_what_the_hub_reads(comparison):
    card = render_card(facts(comparison), "you/model")
    found = metadata(card)
    index = found.pop("model-index")
    assert found == {
        "license": "gemma",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "a/b",
        "tags": ["function-calling", "functiongemma"],
    }
    (model,) = index
    assert model["name"] == "you/model" and model["results"][0]["dataset"]["type"] == "offline sample"
    values = {one["type"]: one["value"] for one in model["results"][0]["metrics"]}
    assert values == {"ast_match": 1.0, "tool_accuracy": 1.0, "cer": 0.0}
    again = ModelCard(card).data
    assert again.base_model == "a/b" and len(again.eval_results) == 3


def test_a_measure_of_nothing_is_not_in_the_index():
    rows = [ROWS[3]]  # no call is due, so nothing is counted for the error rate
    nothing = compare(score(rows, ["no"]), score(rows, ["no"]))
    results = metadata(render_card(facts(nothing)))["model-index"][0]["results"]
    assert [one["type"] for result in results for one in result["metrics"]] == ["ast_match"]


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("owner/name", "owner/name"),
        ("google/functiongemma/transformers/functiongemma-270m-it", "google/functiongemma-270m-it"),
        ("standin", None),
        ("./mine", None),
        ("/home/me/mine", None),
    ],
)
def test_the_base_model_is_named_where_the_hub_knows_it(comparison, model, base):
    given = facts(comparison)
    given["run"]["model"] = model
    assert metadata(render_card(given)).get("base_model") == base


def test_the_card_says_which_weights_were_saved_where_there_was_a_choice(comparison):
    given = facts(comparison)
    choice = "The weights after step 77 were saved: 12 training rows, held out, chose them"
    assert choice in render_card(given)
    given["train"]["choose_best"] = False
    assert "chose them" not in render_card(given) and "were saved" not in render_card(given)


def test_the_card_lists_the_names_a_server_has_to_put_back(comparison):
    given = facts(comparison)
    assert "restore_calls" not in render_card(given)
    given["funnel"]["renamed"] = {"tools": {"a_b": "a{b"}, "parameters": {"find": {"type_": "type"}}}
    card = render_card(given)
    assert "restore_calls" in card and "| a_b |  | a{b |" in card and "| find | type_ | type |" in card
    assert "more, in" not in card
    given["funnel"]["renamed"]["tools"] = {f"new_{number}": f"old {number}" for number in range(45)}
    card = render_card(given)
    assert card.count("| new_") == MAX_NAMES == 40 and "... and 6 more, in `funnel.json`." in card


def test_the_card_names_no_folder_of_the_machine(comparison):
    given = facts(comparison)
    given["run"] |= {"model": "/home/me/models/mine", "data": "/home/me/rows.jsonl"}
    card = render_card(given)
    assert "/home/me" not in card and "`mine`" in card and "base_model" not in card


def test_a_card_without_its_facts_is_an_error(comparison):
    given = facts(comparison)
    del given["train"]
    with pytest.raises(ValueError, match=r"needs run, funnel, train, compare, but lacks train"):
        render_card(given)
    assert set(NEEDED) == {"run", "funnel", "train", "compare"}
