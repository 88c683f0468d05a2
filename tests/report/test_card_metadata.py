"""The card's metadata as huggingface_hub reads and checks it; what the hub's server says cannot be asked here."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from fgtools.metrics import Comparison, compare, score
from fgtools.report.card import render_card
from tests.report.card_facts import build_facts
from tests.report.four_rows import RIGHT, ROWS, WRONG

HUB_DATA = "owner/rows"


def facts_of_a_hub_data_set():
    facts = build_facts(unseen=compare(score(ROWS, RIGHT), score(ROWS, WRONG)).to_dict())
    facts["run"] |= {"data": HUB_DATA, "split": "train", "config": "", "revision": "abc"}
    facts["funnel"]["origin"] = HUB_DATA
    facts["data"] = {"licence": "Apache-2.0", "languages": ["en", "no", "not a code"]}
    return facts


def test_the_hubs_own_reader_finds_every_field(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(render_card(facts_of_a_hub_data_set(), "you/my-tools"), encoding="utf-8")
    data = ModelCard.load(path).data
    fields = {
        **{"license": "gemma", "base_model": "a/b", "base_model_relation": "finetune", "language": ["en", "no"]},
        **{"datasets": [HUB_DATA], "library_name": "transformers", "pipeline_tag": "text-generation"},
        **{"model_name": "my-tools"},
    }
    assert {name: data.get(name) for name in fields} == fields
    assert data.tags[:2] == ["function-calling", "tool-use"]


def test_scores_come_with_their_counts_and_intervals():
    facts = facts_of_a_hub_data_set()
    results = ModelCard(render_card(facts)).data.eval_results
    after = Comparison.from_dict(facts["compare"]).change("ast_match").after
    first = results[0]
    assert (first.metric_type, first.metric_value, first.dataset_split) == ("ast_match", 1.0, "eval")
    assert first.metric_args == {"k": 4, "n": 4, "interval_95": [round(end, 4) for end in after.interval]}
    assert first.metric_name == f"AST match: {after}" and "4/4" in first.metric_name
    assert (first.dataset_type, first.dataset_revision) == (HUB_DATA, "abc")
    assert first.dataset_name == "owner/rows: 4 held-out rows of its split train"
    assert {(one.dataset_split, one.metric_value) for one in results if one.metric_type == "ast_match"} == {
        ("eval", 1.0),
        ("unseen", 0.25),
    }


def test_metadata_goes_through_the_hubs_conversions_unchanged(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(render_card(facts_of_a_hub_data_set(), "you/my-tools"), encoding="utf-8")
    saved = metadata_load(path)
    name, results = model_index_to_eval_results(saved["model-index"])
    assert eval_results_to_model_index(name, results) == saved["model-index"] and name == "my-tools"
    card = ModelCard.load(path)
    assert yaml.safe_load(card.data.to_yaml()) == saved
    before = path.read_text(encoding="utf-8")
    metadata_save(path, saved)
    assert metadata_load(path) == saved and path.read_text(encoding="utf-8").split("\n---\n", 1)[1] in before


def test_measures_without_rows_are_left_out():
    calls = [row for row in ROWS if row["gold"]]
    comparison = compare(score(calls, WRONG[:3]), score(calls, RIGHT[:3]))
    results = ModelCard(render_card(build_facts(compare=comparison.to_dict()))).data.eval_results
    assert "false_calls" not in {one.metric_type for one in results} and ".nan" not in render_card(build_facts())


def test_what_is_not_known_is_left_out():
    card = ModelCard(render_card(build_facts()))
    assert card.data.datasets is None and card.data.language is None
    assert card.data.eval_results[0].dataset_type == "custom"


@pytest.mark.parametrize("data", ["/home/me/rows.jsonl", "folder/rows.jsonl", "sample"])
def test_a_local_file_is_no_data_set_of_the_hub(data):
    facts = build_facts()
    facts["run"]["data"] = data
    card = render_card(facts)
    assert "datasets:" not in card and "/home/me" not in card


def test_the_block_is_the_only_metadata_and_ends_once():
    card = render_card(facts_of_a_hub_data_set(), "you/my-tools")
    assert card.startswith("---\n") and len(re.findall(r"^---$", card, re.MULTILINE)) == 2
