"""The offline room: the sample's mess and honesty, the tokenizer's ids, the shipped checkpoint."""

import hashlib
import json
import random
import re
from collections import Counter

import pytest

from fgtools.calls.tokens import CONTROL_TOKENS
from fgtools.offline.catalogue import build_request, load_catalogue, load_pools, read_text
from fgtools.offline.curriculum import SHARES, load_topics, load_words
from fgtools.offline.curriculum import build_rows as build_pretraining_rows
from fgtools.offline.samples import build_samples
from fgtools.rows import build_rows, split_rows

CHECKPOINT_LIMIT = 8_000_000
SAMPLE = build_samples(3000, 40)


@pytest.fixture(scope="module")
def rowset():
    return build_rows(SAMPLE)


def test_equal_seeds_give_equal_samples_and_others_do_not():
    assert build_samples(200, 7) == build_samples(200, 7) != build_samples(200, 8)


def test_the_sample_has_the_size_and_the_sides_it_promises():
    assert len(SAMPLE) == 3000 and len({row["row_id"] for row in SAMPLE}) == 3000
    sides = Counter(row["split"] for row in SAMPLE)
    assert sides["eval"] == 300 and sides["unseen"] == 150


def test_every_promised_kind_of_mess_is_there():
    assert {row["source"] for row in SAMPLE} == {
        "sample_list",
        "sample_wrapped",
        "sample_bare_wrapper",
        "sample_strings",
        "sample_literals",
    }
    assert {row["scenario_category"] for row in SAMPLE} == {"single_turn", "multi_turn", "multi_step", "relevance"}
    text = json.dumps(SAMPLE)
    for trace in (
        "<think>",
        ", optional",
        "List[str]",
        "<tool_response>",
        "<tools>",
        '\\"arguments\\": \\"',
        "{'name':",
    ):
        assert trace in text, trace


def test_half_of_the_rows_that_need_no_call_offer_a_near_miss(rowset):
    """A near miss is a tool of the domain of the one that the request is about; both kinds offer two tools at least."""
    catalogue = load_catalogue()
    domains = {tool.name: tool.domain for tool in catalogue.seen + catalogue.unseen}
    refused = [row for row in rowset.rows if not row["gold"] and row["split"] != "unseen"]
    asked = {row["row_id"]: row["category"] for row in SAMPLE}
    offered = [[tool["function"]["name"] for tool in row["tools"]] for row in refused]
    near = [asked[row["row_id"]] in map(domains.get, names) for row, names in zip(refused, offered, strict=True)]
    assert 0.35 < sum(near) / len(near) < 0.55 and min(map(len, offered)) >= 2


def test_rows_are_rejected_for_many_reasons_and_most_are_kept(rowset):
    assert sum(rowset.funnel.values()) == 3000
    assert rowset.funnel["kept"] > 2800
    assert set(rowset.funnel) >= {"no_tools", "bad_tools", "unknown_tool", "broken_call", "no_user_turn"}
    assert sum(not row["gold"] for row in rowset.rows) > 200
    assert sum(len(row["gold"]) > 1 for row in rowset.rows) > 300


def test_every_notation_of_a_tool_becomes_the_same_schema(rowset):
    schemas: dict[str, set[str]] = {}
    for row in rowset.rows:
        for tool in row["tools"]:
            schemas.setdefault(tool["function"]["name"], set()).add(json.dumps(tool, sort_keys=True))
    assert all(len(variants) == 1 for variants in schemas.values()), {n for n, v in schemas.items() if len(v) > 1}


def test_no_request_stands_on_two_sides_and_duplicates_are_found(rowset):
    splits = split_rows(rowset.rows, n_eval=300, seed=40)
    groups = [{row["group"] for row in side} for side in (splits.train, splits.eval, splits.unseen)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert splits.duplicates > 20 and splits.conflicts > 20


def test_unseen_tools_are_declared_nowhere_else(rowset):
    declared = {"train": set(), "eval": set(), "unseen": set()}
    for row in rowset.rows:
        declared[row["split"]] |= {tool["function"]["name"] for tool in row["tools"]}
    assert not declared["unseen"] & (declared["train"] | declared["eval"])


def test_the_catalogue_is_large_and_its_wordings_are_parted():
    catalogue = load_catalogue()
    assert len(catalogue.seen) >= 48 and len(catalogue.unseen) >= 12
    for tool in catalogue.seen:
        sides = [set(tool.wordings_for(side)) for side in ("train", "development", "eval")]
        assert [len(side) for side in sides] == [7, 1, 2] and len(set.union(*sides)) == 10, tool.name
    used = {parameter.pool for tool in catalogue.seen for parameter in tool.parameters if parameter.kind == "string"}
    assert used <= set(load_pools())


def test_a_request_never_spells_out_the_tools_name():
    draw = random.Random(1)
    for tool in load_catalogue().seen:
        for side in ("train", "eval"):
            assert tool.name.replace("_", " ") not in build_request(tool, side, draw).text


def test_pretraining_never_shows_a_tool_of_the_catalogue():
    catalogue = load_catalogue()
    names = {tool.name for tool in catalogue.seen + catalogue.unseen}
    draw = random.Random(3)
    rows = [row for _ in range(100) for row in build_pretraining_rows(draw)]
    assert not names & {tool["function"]["name"] for row in rows for tool in row["tools"]}


def test_pretraining_rows_have_the_shares_that_are_written_down():
    """Within three standard errors: rows with several calls come in whole prompts, so prompts are counted for them."""
    draw = random.Random(5)
    prompts = [build_pretraining_rows(draw) for _ in range(400)]
    several = sum(any(len(row["gold"]) > 1 for row in rows) for rows in prompts)
    rows = [row for rows in prompts for row in rows]
    refused = sum(not row["gold"] for row in rows)
    assert abs(several / 400 - SHARES["parallel"] / 100) < 3 * (0.17 * 0.83 / 400) ** 0.5
    assert abs(refused / len(rows) - SHARES["refusal"] / 100) < 0.03
    assert all(row["reply"] or row["gold"] for row in rows)


def test_pretraining_asks_for_one_call_in_several_wordings():
    rows = build_pretraining_rows(random.Random(6), count=40)
    wordings: dict[str, set[str]] = {}
    for row in rows:
        if row["gold"]:
            wordings.setdefault(json.dumps(row["gold"]), set()).add(row["messages"][-1]["content"])
    assert max(map(len, wordings.values())) >= 3


def test_pretraining_never_repeats_a_wording_of_the_catalogue():
    catalogue = load_catalogue()
    wordings = {
        re.sub(r"\{[^}]*\}|[\[\]]", " ", text).strip()
        for tool in catalogue.seen + catalogue.unseen
        for text in tool.wordings
    }
    long = {" ".join(text.split()[:6]) for text in wordings if len(text.split()) >= 6}
    draw = random.Random(4)
    said = [row["messages"][-1]["content"] for _ in range(70) for row in build_pretraining_rows(draw)]
    assert not [text for text in said if any(start in text for start in long)]


def test_topics_know_no_word_that_only_evaluation_uses():
    allowed = set(load_pools()["any"])
    for tool in load_catalogue().seen:
        allowed |= set(re.findall("[a-z]+", f"{tool.name} {tool.description} " + " ".join(tool.wordings_for("train"))))
    evaluated = {
        word
        for tool in load_catalogue().seen
        for text in tool.wordings_for("eval")
        for word in re.findall("[a-z]+", re.sub(r"\{[^}]*\}", " ", text))
    }
    assert not {word for topic in load_topics() for word in topic.words} & (evaluated - allowed)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from fgtools.offline.standin import CHECKPOINT

    return AutoTokenizer.from_pretrained(CHECKPOINT)


def test_control_tokens_have_functiongemmas_ids(tokenizer):
    from fgtools.offline.standin import FIXED_IDS, SPECIAL

    assert {token: tokenizer.convert_tokens_to_ids(token) for token in FIXED_IDS} == FIXED_IDS
    assert {token for token in CONTROL_TOKENS if token in FIXED_IDS and token in tokenizer.all_special_tokens} == set(
        SPECIAL
    )


@pytest.mark.parametrize(
    "text", ["wake me up at 6:30", "Zażółć gęślą\n\tjaźń  日本語 🎉", "<escape>new york<escape>", "", "a\u200bb"]
)
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert tokenizer(text).input_ids[0] == 2


def test_a_word_is_one_token_wherever_it_stands(tokenizer):
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in ("oslo", "in oslo", "<escape>oslo<escape>")]
    assert len(ids[0]) == 1 and ids[0][0] in ids[1] and ids[0][0] in ids[2]
    assert all(len(tokenizer(word, add_special_tokens=False).input_ids) == 1 for word in load_words())


def test_the_checkpoint_is_small_and_says_what_it_was_made_from():
    from fgtools.offline.standin import CHECKPOINT

    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= CHECKPOINT_LIMIT
    facts = json.loads((CHECKPOINT / "standin.json").read_text())
    assert facts["steps_done"] == facts["steps"]
    for name, recorded in facts["sources"].items():
        assert hashlib.sha256(read_text(name).encode()).hexdigest() == recorded, (
            f"{name} changed: make the stand-in again"
        )


def test_the_checkpoint_is_a_gemma_with_both_kinds_of_attention():
    from transformers import AutoModelForCausalLM

    from fgtools.offline.standin import CHECKPOINT

    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT)
    assert type(model).__name__ == "Gemma3ForCausalLM"
    assert set(model.config.layer_types) == {"sliding_attention", "full_attention"}
    assert model.config.use_cache and model.generation_config.eos_token_id == [1, 50, 106]
