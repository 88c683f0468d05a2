"""The facts of a card, collected from a run folder; and a card from them."""

import json

import pytest

from fgtools.files import sha256_of
from fgtools.metrics import compare, score
from fgtools.models.licence import write_licence_files
from fgtools.profiles import HERMES
from fgtools.report.card import render_card
from fgtools.report.card_licence import build_licence_table
from fgtools.run.card_facts import collect_facts
from fgtools.run.folder import MissingArtifactError, RunFolder
from fgtools.run.real import REAL_ROWS
from tests.report.card_facts import build_facts
from tests.report.four_rows import RIGHT, ROWS, WRONG

GEMMA = {"model_type": "gemma3_text", "hidden_size": 640}


@pytest.fixture
def run(tmp_path):
    """A run of four rows whose model is a few bytes, tuned from a Gemma model."""
    run = RunFolder(tmp_path / "run")
    made = build_facts()
    for name in ("run", "funnel", "audit", "train", "compare"):
        run.write_json(f"{name}.json", made[name])
    run.write_json("scores.tuned.json", score(ROWS, RIGHT).to_dict())
    (run.root / "model").mkdir()
    (run.root / "model" / "config.json").write_text(json.dumps(GEMMA))
    (run.root / "model" / "model.safetensors").write_bytes(b"weights")
    (run.root / "model" / "README.md").write_text("an older card")
    return run


def write_run(run, **changes):
    run.write_json("run.json", run.read_json("run.json") | changes)


def test_base_tools_and_hashes_are_found_out(run):
    facts = collect_facts(run)
    assert facts["base"]["hub_id"] == "a/b" and facts["base"]["licence"] == "gemma"
    assert facts["tools"] == {"one": [3, 3]} and facts["unseen"] == {}
    assert facts["files"]["model.safetensors"] == sha256_of(run.root / "model" / "model.safetensors")
    assert set(facts["files"]) == {"config.json", "model.safetensors"}
    assert render_card(facts).startswith("---\nbase_model: a/b\n")


def test_tools_that_were_kept_apart_are_compared(run):
    before, after = score(ROWS, WRONG), score(ROWS, RIGHT)
    run.write_json("scores.base.unseen.json", before.to_dict())
    assert collect_facts(run)["unseen"] == {}
    run.write_json("scores.tuned.unseen.json", after.to_dict())
    assert collect_facts(run)["unseen"]["verdict"] == compare(before, after).verdict


def test_files_of_the_run_are_named_with_their_hashes(run):
    source = run.write_json("scores.base.json", {})
    run.write_json("compare.json", run.read_json("compare.json"), [source])
    assert collect_facts(run)["files"]["scores.base.json"] == sha256_of(source)


def test_licence_and_languages_of_known_data_are_known(run):
    assert collect_facts(run)["data"]["licence"].startswith("Apache-2.0")
    assert collect_facts(run, ["de"])["data"] == {**collect_facts(run)["data"], "languages": ["de"]}
    write_run(run, data="/home/me/rows.jsonl")
    assert collect_facts(run)["data"] == {} and collect_facts(run, ["de"])["data"] == {"languages": ["de"]}
    write_run(run, data=HERMES)
    assert collect_facts(run)["data"]["licence"] == "Apache-2.0"


def test_the_packages_real_rows_are_known_by_their_hash(run):
    saved = run.read_json("run.json") | {"data": str(REAL_ROWS)}
    run.write_json("run.json", saved, [REAL_ROWS])
    facts = collect_facts(run)
    assert facts["data"]["languages"] == ["en", "zh"] and "must not be scored on it." in render_card(facts)
    other = run.root / REAL_ROWS.name
    other.write_bytes(b"other rows of the same name")
    run.write_json("run.json", saved | {"data": str(other)}, [other])
    assert collect_facts(run)["data"] == {}


def test_the_licence_table_says_what_is_met_and_what_to_do(run):
    table = build_licence_table(collect_facts(run))
    assert list(table["met"]) == ["NO"] * 4 and "save the model with this version" in table.iloc[3, 1]
    write_licence_files(run.root / "model", "", GEMMA)
    table = build_licence_table(collect_facts(run))
    assert list(table["met"]) == ["yes", "NO", "yes", "yes"]
    assert "as GEMMA_TERMS.html in the model's folder before publishing" in table.iloc[1, 1]
    (run.root / "model" / "GEMMA_TERMS.html").write_text("... Model Derivatives ...")
    facts = collect_facts(run)
    table = build_licence_table(facts)
    assert list(table["met"]) == ["yes"] * 4 and table.iloc[1, 1] == "GEMMA_TERMS.html"
    card = render_card(facts)
    assert "A copy of the terms: `GEMMA_TERMS.html`." in card and f"{facts['licence']['notice']}." in card
    assert "`NOTICE` lists the files" in card and facts["licence"]["restrictions"] in card


def test_the_terms_ask_nothing_of_the_stand_in(run):
    write_run(run, model="standin")
    assert len(build_licence_table(collect_facts(run))) == 0


def test_a_missing_file_names_its_notebook(run):
    (run.root / "scores.tuned.json").unlink()
    with pytest.raises(MissingArtifactError, match="run 05_post_eval first"):
        collect_facts(run)
