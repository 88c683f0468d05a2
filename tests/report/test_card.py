"""The model card: what a run says of itself, and nothing of the machine it ran on."""

import json

import pytest

from fgtools.calls import ToolCall
from fgtools.calls.engines import count_unread
from fgtools.metrics import compare, score
from fgtools.metrics.coverage import Outcome, choose_threshold
from fgtools.report.card import NEEDED, render_card
from tests.report.four_rows import RIGHT, ROWS, WRONG


@pytest.fixture(scope="module")
def comparison():
    return compare(score(ROWS, WRONG), score(ROWS, RIGHT))


def facts(comparison):
    run = {"model": "a/b", "data": "sample", "recipe": "native", "dtype": "torch.float32"}
    training = {name: 1 for name in ("n_train", "n_too_long", "steps", "tokens", "label_tokens")}
    training |= {"precision": "fp32", "saved_step": 77, "n_eval": 12}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 3}
    training["arguments"] = {"learning_rate": 5e-5, "seed": 40, "load_best_model_at_end": True, **sizes}
    return {
        "run": {**run, "environment": {"torch": "2.13.0"}},
        "funnel": {"rows_in": 4, "origin": "offline sample", "funnel": {"kept": 4}, "split": {"train": 2, "eval": 2}},
        "audit": {"engines": count_unread([[ToolCall("f.g", {"a": 1})], [ToolCall("f", {"a": "x"})]])},
        "train": training,
        "compare": json.loads(json.dumps(comparison.to_dict())),
    }


def test_the_card_holds_counts_caveat_and_metadata(comparison):
    card = render_card(facts(comparison), "you/model", "offline stand-in")
    assert card.startswith("---\nlicense: gemma\n") and "base_model: a/b" in card
    assert "# you/model" in card and "> **offline stand-in**" in card
    assert "4/4 = 100.0%" in card and comparison.verdict in card and "torch 2.13.0" in card


def test_the_card_says_where_answers_were_counted(comparison):
    given = facts(comparison)
    assert "\n4 raw rows from offline sample." in render_card(given)
    given["funnel"]["rows_in"] = 2
    assert "\n4 answers in 2 raw rows from offline sample." in render_card(given)


def test_the_card_lists_the_names_a_server_has_to_put_back(comparison):
    given = facts(comparison)
    assert "load_caller" not in render_card(given)
    given["funnel"]["renamed"] = {"tools": {"a_b": "a{b"}, "parameters": {"find": {"type_": "type"}}}
    card = render_card(given)
    assert "load_caller" in card and "| a_b |  | a{b |" in card and "| find | type_ | type |" in card


def test_the_card_shows_how_an_application_uses_the_model(comparison):
    assert "## In an application" not in render_card(facts(comparison))
    assert "```python\nprint(1)\n```\n\n## Training" in render_card(facts(comparison), usage="print(1)\n")


def test_the_card_names_no_folder_of_the_machine(comparison):
    given = facts(comparison)
    given["run"] |= {"model": "/home/me/models/mine", "data": "/home/me/rows.jsonl"}
    card = render_card(given)
    assert "/home/me" not in card and "`mine`" in card and "base_model" not in card


@pytest.mark.parametrize(
    ("model", "name", "base"),
    [
        ("models/mine.gguf", "`mine.gguf`", ""),
        ("/home/me/mine.gguf", "`mine.gguf`", ""),
        ("a/b-GGUF:mine.gguf", "`a/b-GGUF:mine.gguf`", "base_model: a/b-GGUF\n"),
    ],
)
def test_a_gguf_file_is_a_base_model_where_it_is_one_of_the_hub(comparison, model, name, base):
    given = facts(comparison)
    given["run"] |= {"model": model}
    card = render_card(given)
    assert name in card and (base in card if base else "base_model" not in card) and "/home/me" not in card


def test_the_card_says_how_the_saved_weights_were_chosen_where_they_were(comparison):
    given = facts(comparison)
    assert "after step 77 were saved: 12 training rows, held out, chose them" in render_card(given)
    given["train"]["arguments"]["load_best_model_at_end"] = False
    assert "were saved" not in render_card(given)


def test_a_card_without_its_facts_is_an_error(comparison):
    given = facts(comparison)
    del given["train"]
    with pytest.raises(ValueError, match=r"needs run, funnel, audit, train, compare, but lacks train"):
        render_card(given)
    assert set(NEEDED) == {"run", "funnel", "audit", "train", "compare"}


def test_the_card_says_what_a_threshold_is_worth_where_one_was_chosen(comparison):
    given = facts(comparison)
    assert "Unsure answers" not in render_card(given)
    outcomes = [Outcome(place < 90, -0.01 * place, str(place)) for place in range(120)]
    choice = choose_threshold(outcomes, 0.9)
    given["compare"]["coverage"] = json.loads(json.dumps(choice.to_dict()))
    card = render_card(given)
    assert choice.describe() in card and f"load_caller(folder, threshold={choice.threshold:g})" in card
    given["compare"]["coverage"] = json.loads(json.dumps(choose_threshold(outcomes[:5], 0.9).to_dict()))
    assert "3 are too few for one" in render_card(given) and "threshold=" not in render_card(given)


def test_the_card_says_who_reads_the_calls(comparison):
    given = facts(comparison)
    card = render_card(given)
    assert "## Who reads its calls" in card and "| vLLM (0.32.0) | 1 | 2 | 1 | a number |" in card
    assert "| BFCL (bfcl-eval 2026.3.23) | 2 | 2 | 0 |" in card
    given["audit"] = {}
    assert "Who reads" not in render_card(given)
