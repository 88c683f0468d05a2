"""The model card: what a run says of itself, and nothing of the machine it ran on."""

import pytest
from huggingface_hub import ModelCard

from fgtools.metrics import Comparison, compare, score
from fgtools.metrics.coverage import Outcome, choose_threshold
from fgtools.models.base import identify_base
from fgtools.offline import CHECKPOINT
from fgtools.profiles import REAL_MARK, STANDIN_SHAPE
from fgtools.report.card import NEEDED, render_card, render_preview
from fgtools.report.card_failures import ERRORS
from fgtools.report.tables import shorten_code
from tests.report.card_facts import as_json, build_facts
from tests.report.four_rows import RIGHT, ROWS, WRONG

GEMMA = {"model_type": "gemma3_text", "hidden_size": 640}


def test_the_card_holds_counts_and_caveat():
    facts = build_facts()
    card = render_card(facts, "you/model", "offline stand-in")
    verdict = Comparison.from_dict(facts["compare"]).verdict
    assert "# a/b, tuned to call tools\n\n> **offline stand-in**\n\n`you/model` is `a/b`, fine-tuned" in card
    assert "4/4 = 100.0%" in card and verdict in card and "torch 2.13.0" in card


def test_the_card_shows_tools_the_training_never_saw_where_there_are_some():
    assert "No tools were kept out of the training" in render_card(build_facts())
    unseen = compare(score(ROWS, RIGHT), score(ROWS, WRONG))
    card = render_card(build_facts(unseen=unseen.to_dict()))
    assert f"Rows whose tools no training row declares: 4. {unseen.verdict}" in card
    assert "No tools were kept" not in card


def test_the_card_names_what_still_goes_wrong():
    worse = compare(score(ROWS, RIGHT), score(ROWS, WRONG))
    card = render_card(build_facts(compare=worse.to_dict(), tools={"one": [0, 3], "two": [1, 1]}))
    assert "Held-out rows that the tuned model answers wrongly: 3 of 4." in card
    assert "| a call where none was due | `false_call` | 1/4 = 25.0%" in card
    assert "Rows that were right before the training and are wrong after it: 3." in card
    assert "Where no call is due, it calls a tool in 1/1 = 100.0%" in card
    assert (
        "come out right: 1. The worst, of few rows each:\n\n| tool | rows right |" in card and "| `one` | 0/3 |" in card
    )
    assert "`two`" not in card
    assert "None of the 4 held-out rows came out wrong." in render_card(build_facts())


def test_every_error_has_words():
    from fgtools.metrics import ast_match, ladder

    codes = {ladder.MISSED_CALL, ladder.FALSE_CALL, ladder.UNREADABLE}
    codes |= {value for name, value in vars(ast_match).items() if name.isupper() and isinstance(value, str)}
    assert len(codes) > 12 and {shorten_code(code) for code in codes} == set(ERRORS)


def test_the_card_says_where_answers_were_counted():
    facts = build_facts()
    assert "\n4 raw rows from `offline sample`." in render_card(facts)
    facts["funnel"]["rows_in"] = 2
    assert "\n4 answers in 2 raw rows from `offline sample`." in render_card(facts)


def test_the_card_lists_sources_licence_and_languages_of_the_rows():
    facts = build_facts()
    assert "Licence of the rows: the files of the run do not say" in render_card(facts)
    facts["data"] = {"licence": "Apache-2.0", "languages": ["en", "zh"]}
    facts["funnel"]["by_source"] = {"a": {"kept": 1, "no_tools": 2}, "b": {"kept": 3}}
    card = render_card(facts)
    assert "Licence of the rows: Apache-2.0. Languages of the requests: en, zh." in card
    assert "| `b` | 3 | 3 |\n| `a` | 1 | 3 |" in card


def test_the_card_lists_the_names_a_server_has_to_put_back():
    facts = build_facts()
    assert "puts the author's back" not in render_card(facts)
    facts["funnel"]["renamed"] = {"tools": {"a_b": "a{b"}, "parameters": {"find": {"type_": "type"}}}
    card = render_card(facts)
    assert "puts the author's back" in card and "| `a_b` |  | <code>a&#123;b</code> |" in card
    assert "| `find` | `type_` | `type` |" in card
    facts["funnel"]["renamed"] = {"tools": {f"t{number}": "t" for number in range(42)}}
    assert "... and 2 more, in `funnel.json`." in render_card(facts)


def test_the_card_shows_how_an_application_uses_the_model():
    assert "## In an application" not in render_card(build_facts())
    assert "```python\nprint(1)\n```\n\nWithout it" in render_card(build_facts(), usage="print(1)\n")


def test_the_card_of_the_tutorials_recipe_says_how_its_calls_are_written_and_what_was_learnt():
    native, facts = build_facts(), build_facts()
    facts["run"]["recipe"] = "tutorial"
    card = render_card(facts, usage="print(1)\n")
    assert "as JSON in one text named `args`" in card and "on prompts and right answers." in card
    assert "on the right answers alone." in render_card(native) and "named `args`" not in render_card(native)


def test_the_card_of_adapters_says_so():
    facts = build_facts()
    assert "All weights were trained" in render_card(facts)
    facts["train"]["lora_rank"] = 16
    card = render_card(facts)
    assert "LoRA adapters of rank 16 were trained and then merged" in card and "\n- lora\n" in card
    assert "changed by LoRA adapters of rank 16; steps: 1, rows: 1." in card


def test_the_card_says_how_the_saved_weights_were_chosen_where_they_were():
    facts = build_facts()
    assert "after step 77 were saved: 12 training rows, held out, chose them" in render_card(facts)
    facts["train"]["arguments"]["load_best_model_at_end"] = False
    assert "were saved" not in render_card(facts)


def test_a_notebook_shows_the_card_with_the_metadata_folded():
    shown = render_preview(render_card(build_facts()))
    metadata, _, text = shown.partition("\n</details>\n")
    assert metadata.startswith("<details>") and "```yaml" in metadata and "model-index:" in metadata
    assert text.lstrip().startswith("# ") and "\n---\n" not in shown.partition("# ")[2][:200]


def test_a_card_without_its_facts_is_an_error():
    facts = build_facts()
    del facts["train"]
    with pytest.raises(ValueError, match=r"needs run, funnel, audit, train, compare, base, but lacks train"):
        render_card(facts)
    assert set(NEEDED) == {"run", "funnel", "audit", "train", "compare", "base"}


def test_the_card_says_what_a_threshold_is_worth_where_one_was_chosen():
    facts = build_facts()
    assert "Unsure answers" not in render_card(facts)
    outcomes = [Outcome(place < 90, -0.01 * place, str(place)) for place in range(120)]
    choice = choose_threshold(outcomes, 0.9)
    facts["compare"]["coverage"] = as_json(choice.to_dict())
    card = render_card(facts)
    assert choice.describe() in card and f"load_caller(folder, threshold={choice.threshold:g})" in card
    facts["compare"]["coverage"] = as_json(choose_threshold(outcomes[:5], 0.9).to_dict())
    assert "3 are too few for one" in render_card(facts) and "threshold=" not in render_card(facts)


def test_the_card_says_who_reads_the_calls():
    facts = build_facts()
    card = render_card(facts)
    assert "## Who reads its calls" in card and "| vLLM (0.32.0) | 1 | 2 | 1 | a number |" in card
    assert "| BFCL (bfcl-eval 2026.3.23) | 2 | 2 | 0 |" in card
    facts["audit"] = {}
    assert "Who reads" not in render_card(facts)


def test_the_card_shows_the_hashes_of_files():
    assert "## Files" not in render_card(build_facts())
    assert "| `model.safetensors` | `ab12` |" in render_card(build_facts(files={"model.safetensors": "ab12"}))


FUNCTIONGEMMA = ("FunctionGemma 270M", "google/functiongemma-270m-it")


@pytest.mark.parametrize(
    ("model", "title", "hub_id"),
    [
        ("google/functiongemma-270m-it", *FUNCTIONGEMMA),
        ("google/functiongemma/transformers/functiongemma-270m-it", *FUNCTIONGEMMA),
        ("google/functiongemma/transformers/functiongemma-270m-it/1", *FUNCTIONGEMMA),
        ("/kaggle/input/models/google/functiongemma/transformers/functiongemma-270m-it/1", *FUNCTIONGEMMA),
        ("/home/me/.cache/hub/models--google--functiongemma-270m-it/snapshots/0ab", *FUNCTIONGEMMA),
        ("google/gemma-3-270m", "Gemma 3 270M", "google/gemma-3-270m"),
        ("you/my-tools", "you/my-tools", "you/my-tools"),
        ("a/b-GGUF:mine.gguf", "a/b-GGUF", "a/b-GGUF"),
        ("models/mine.gguf", "mine.gguf (a Gemma model)", ""),
        ("/home/me/mine.gguf", "mine.gguf (a Gemma model)", ""),
        ("/home/me/models/mine", "mine (a Gemma model)", ""),
        ("./mine", "mine (a Gemma model)", ""),
        ("", "A Gemma model", ""),
    ],
)
def test_the_title_names_the_base_and_no_folder_of_the_machine(model, title, hub_id):
    base = identify_base(model, GEMMA)
    assert (base.title, base.hub_id, base.licence) == (title, hub_id, "gemma")
    card = render_card(build_facts(base=base.to_dict()))
    assert "/home/me" not in card and "/kaggle" not in card
    data = ModelCard(card).data
    assert (data.base_model or "", data.get("base_model_relation", "")) == (hub_id, "finetune" if hub_id else "")


def test_a_folder_of_this_machine_comes_before_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    base = identify_base("models/mine", GEMMA)
    assert (base.title, base.hub_id) == ("mine (a Gemma model)", "")


def test_gemma_3_270m_as_run_builds_it_is_named_with_what_was_done_to_its_weights(tmp_path):
    (tmp_path / REAL_MARK).write_text("{}")
    base = identify_base(str(tmp_path), GEMMA)
    card = render_card(build_facts(base=base.to_dict()), banner="Gemma 3 270M, a base model from 4-bit weights")
    assert "# Gemma 3 270M, tuned to call tools" in card and "base_model: google/gemma-3-270m\n" in card
    assert "rounded to 4 to 8 bits" in card and "FunctionGemma, tuned" not in card


@pytest.mark.parametrize("model", ["standin", str(CHECKPOINT), "/home/me/tuned"])
def test_the_stand_in_is_a_toy_and_no_gemma_model(model):
    base = identify_base(model, STANDIN_SHAPE)
    card = render_card(build_facts(base=base.to_dict()))
    assert (
        "# Offline stand-in &#40;a toy model&#41;, tuned" in card or "# Offline stand-in (a toy model), tuned" in card
    )
    assert "\nlicense: apache-2.0\n" in card and "base_model" not in card and "Gemma is provided" not in card


def test_another_models_licence_is_not_guessed():
    base = identify_base("you/llama", {"model_type": "llama"})
    card = render_card(build_facts(base=base.to_dict()))
    assert "\nlicense:" not in card and "The licence of the base, `you/llama`, is not known to this card." in card
