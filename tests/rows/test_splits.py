"""Splits: no group on two sides, every row accounted for, the held-out tools really held out."""

import copy
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtools.metrics import score_row
from fgtools.rows import Splits, split_rows
from fgtools.rows.duplicates import build_key, cluster_texts, count_leaks, link_conversations
from fgtools.rows.splits import hold_out, limit_no_call
from fgtools.rows.store import PackedRows, pack_row


def row(name: str, group: str = "", gold: str | None = "f", tools: tuple[str, ...] = ("f",), **fields: object) -> dict:
    calls = [] if gold is None else [{"name": gold, "arguments": fields.pop("arguments", {})}]
    declared = [{"type": "function", "function": {"name": tool}} for tool in tools]
    return {"row_id": name, "group": group or name, "gold": calls, "tools": declared, **fields}


def ids(rows: tuple[dict, ...]) -> list[str]:
    return [item["row_id"] for item in rows]


MANY = [row(str(number)) for number in range(20)]


def test_the_last_rows_are_for_evaluation_when_rows_come_as_given():
    splits = split_rows(MANY, n_eval=3, by="rows")
    assert ids(splits.train) == [str(number) for number in range(17)]
    assert ids(splits.eval) == ["17", "18", "19"]


def test_a_split_of_rows_as_given_counts_what_it_lets_through():
    rows = [row("a", "A"), row("b", "B"), row("c", "B", gold="g"), row("d", "A"), row("e", "A")]
    splits = split_rows(rows, n_eval=2, by="rows")
    assert (splits.duplicates, splits.conflicts, splits.conflict_rows, splits.leaks) == (2, 1, 1, 1)
    assert len(splits.train) + len(splits.eval) == 5


def test_a_group_keeps_one_row_on_one_side():
    rows = [row(str(number), group=str(number // 4)) for number in range(40)]
    splits = split_rows(rows, n_eval=3)
    assert (len(splits.train), len(splits.eval), splits.duplicates) == (7, 3, 30)
    assert not {item["group"] for item in splits.train} & {item["group"] for item in splits.eval}


def test_a_group_that_disagrees_keeps_its_majority():
    rows = [row("a", "A", gold="f"), row("b", "A", gold="g"), row("c", "A", gold="g"), *MANY]
    splits = split_rows(rows, n_eval=0)
    assert "b" in ids(splits.train)
    assert not {"a", "c"} & set(ids(splits.train))
    assert (splits.conflicts, splits.conflict_rows, splits.duplicates) == (1, 1, 1)


def test_at_a_tie_no_row_of_the_group_stays():
    rows = [row("a", "A", gold="g"), row("b", "A", gold="f"), row("c", "B")]
    splits = split_rows(rows, n_eval=0)
    assert (ids(splits.train), splits.conflicts, splits.conflict_rows) == (["c"], 1, 2)


def asking(name: str, request: str, **fields: object) -> dict:
    return row(name, messages=[{"role": "user", "content": request}], **fields)


LONG = "Please tell me whether I should take an umbrella with me to {} this afternoon, and how warm it will be there"


def ask_in_pairs(letters: str) -> list[dict]:
    """Two nearly equal requests per letter, which are unlike those of the other letters."""
    texts = {letter: LONG.format("Oslo").translate(dict.fromkeys(map(ord, "aeiou"), letter)) for letter in letters}
    return [asking(f"{letter}{turn}", text + "!" * turn) for letter, text in texts.items() for turn in (0, 1)]


def test_near_duplicates_stay_on_one_side():
    rows = ask_in_pairs("abcdef")
    for seed in range(5):
        splits = split_rows(rows, n_eval=5, seed=seed)
        assert (len(splits.eval), splits.near_across, splits.near_within) == (4, 0, 6)
        assert {name[0] for name in ids(splits.eval)}.isdisjoint(name[0] for name in ids(splits.train))


def test_a_row_without_a_side_follows_its_near_duplicate():
    rows = [asking("free", LONG.format("Oslo")), asking("held", LONG.format("Oslo!"), split="eval"), *MANY]
    assert set(ids(split_rows(rows, n_eval=0).eval)) == {"free", "held"}


def test_rows_of_one_conversation_stay_on_one_side():
    rows = [
        asking(f"{number}/{turn}", f"{number} {'abc'[turn] * 20}", conversation=str(number))
        for number in range(12)
        for turn in range(3)
    ]
    for seed in range(5):
        splits = split_rows(rows, n_eval=9, seed=seed)
        assert (len(splits.eval), splits.near_within, splits.near_across) == (9, 0, 0)
        held = {item["conversation"] for item in splits.eval}
        assert len(held) == 3
        assert held.isdisjoint(item["conversation"] for item in splits.train)
        kept, chosen = hold_out(splits.train, 6, seed)
        assert len(chosen) == 6
        assert {item["conversation"] for item in chosen}.isdisjoint(item["conversation"] for item in kept)


def test_a_conversation_that_a_benchmark_knows_is_not_trained_on_at_any_turn():
    rows = [
        asking("a", "what is a benchmark's request?", conversation="1"),
        asking("b", "xyz" * 9, conversation="1"),
        *MANY,
    ]
    splits = split_rows(rows, n_eval=0, benchmark=["What is a benchmark's request?"])
    assert (splits.overlaps, len(splits.train)) == (2, 20)


def test_conversations_join_the_clusters_of_their_rows():
    keys = [build_key(asking(str(n), "", conversation=name)) for n, name in enumerate(["", "a", "b", "a", "b", "b"])]
    assert link_conversations(keys, [0, 1, 2, 3, 4, 3]) == [0, 1, 1, 1, 1, 1]
    assert link_conversations(keys, [0, 1, 2, 3, 2, 5]) == [0, 1, 2, 1, 2, 2]


@pytest.mark.parametrize("by", ["group", "rows"])
def test_held_out_rows_say_which_of_them_ask_nearly_the_same(by):
    """Scores keep such rows together, so the split that found them says so in the rows."""
    same = [asking("a", LONG.format("Oslo"), split="eval"), asking("b", LONG.format("Oslo!"), split="eval")]
    talk = [asking(name, name * 9, conversation="c1", split="eval") for name in ("x", "y")]
    alone = asking("z", "Something else altogether, please.", split="eval")
    rows = [*MANY, *same, *talk, alone]
    before = copy.deepcopy(rows)
    for kept in (rows, PackedRows([pack_row(one) for one in rows])):
        held = {row["row_id"]: row for row in split_rows(kept, n_eval=5, by=by).eval}
        labels = {name: held[name].get("request_group") for name in "abxyz"}
        assert labels["a"] == labels["b"] != labels["x"] == labels["y"] and labels["z"] is None
        assert all(labels[name] for name in "abxy")
        scored = [score_row(held[name], "").request_group for name in "abxyz"]
        assert len(set(scored)) == 3 and held["a"].keys() - before[20].keys() == {"request_group"}
    assert rows == before


def test_a_split_of_rows_as_given_counts_near_duplicates_across():
    rows = [asking("a", LONG.format("Oslo")), *MANY[:6], asking("b", LONG.format("Oslo!"))]
    assert split_rows(rows, n_eval=1, by="rows").near_across == 1
    keys = [build_key(one) for one in rows]
    leaks = count_leaks(keys, cluster_texts([key.request for key in keys]), 1)
    assert leaks == {"n_eval": 1, "exact": 0, "request": 0, "near": 1}


@pytest.mark.parametrize("n_eval", [3, 300])
def test_leaks_are_counted_over_at_most_half_of_the_rows(n_eval):
    rows = [asking(str(number), f"question {number}", group=group) for number, group in enumerate("ABCAECA")]
    keys = [build_key(one) for one in rows]
    assert count_leaks(keys, range(7), n_eval) == {"n_eval": 3, "exact": 2, "request": 0, "near": 0}


def test_a_benchmarks_questions_leave_training():
    rows = [asking("asked", LONG.format("Oslo")), *MANY]
    splits = split_rows(rows, n_eval=0, benchmark=[LONG.format("OSLO  ")])
    assert splits.overlaps == 1 and "asked" not in ids(splits.train)
    assert len(splits.train) + splits.overlaps == len(rows)


def test_a_benchmarks_questions_may_be_evaluated_on():
    rows = [asking("asked", LONG.format("Oslo"), split="eval"), *MANY]
    splits = split_rows(rows, n_eval=1, benchmark=[LONG.format("Oslo")])
    assert (splits.overlaps, ids(splits.eval)) == (0, ["asked"])


def test_the_order_of_calls_and_arguments_makes_no_conflict():
    first, second = row("a", "A"), row("b", "A")
    first["gold"] = [{"name": "f", "arguments": {"x": 1, "y": 2}}, {"name": "g", "arguments": {}}]
    second["gold"] = [{"name": "g", "arguments": {}}, {"name": "f", "arguments": {"y": 2, "x": 1}}]
    assert split_rows([first, second], n_eval=0).conflicts == 0


def test_evaluation_takes_at_most_half_of_the_rows():
    for by in ("group", "rows"):
        splits = split_rows(MANY[:7], n_eval=300, by=by)
        assert (len(splits.train), len(splits.eval)) == (4, 3)


def test_a_fraction_gives_as_many_rows():
    assert len(split_rows(MANY, eval_fraction=0.25).eval) == 5
    assert len(split_rows(MANY, eval_fraction=0.28).eval) == 6


def test_the_seed_decides_the_draw():
    first, second = split_rows(MANY, n_eval=5, seed=1), split_rows(MANY, n_eval=5, seed=2)
    assert first == split_rows(MANY, n_eval=5, seed=1)
    assert ids(first.eval) != ids(second.eval)


def test_rows_that_name_their_side_stay_there_and_pull_their_group():
    rows = [
        row("train", "A", split="train"),
        row("eval", "A", split="eval"),
        row("free", "A"),
        row("unseen", "B", split="unseen"),
        row("eval too", "B", split="eval"),
        *MANY,
    ]
    splits = split_rows(rows, n_eval=1)
    assert (ids(splits.eval), ids(splits.unseen)) == (["eval"], ["unseen"])
    assert (splits.leaks, splits.duplicates) == (2, 1)
    assert "train" not in ids(splits.train)


def test_no_training_row_declares_a_held_out_tool():
    rows = [row(str(n), gold=f"t{n % 10}", tools=(f"t{n % 10}", f"t{(n + 3) % 10}", "common")) for n in range(200)]
    splits = split_rows(rows, n_eval=20, unseen_fraction=0.2)
    assert 0 < len(splits.unseen) <= 40
    assert splits.set_aside > 0
    for item in (*splits.train, *splits.eval):
        assert not {tool["function"]["name"] for tool in item["tools"]} & set(splits.held_out_tools)
    for item in splits.unseen:
        assert item["gold"][0]["name"] in splits.held_out_tools


def test_tools_that_few_others_declare_are_held_out_first():
    rows = [row(str(n), gold="busy", tools=("busy", "rare")) for n in range(10)]
    rows += [row("r", gold="rare", tools=("rare",)), row("alone", gold="alone", tools=("alone",))]
    splits = split_rows(rows, n_eval=0, unseen_fraction=0.1)
    assert (splits.held_out_tools, ids(splits.unseen), splits.set_aside) == (("alone",), ["alone"], 0)


def test_a_tool_costs_the_rows_that_declare_it_without_calling_it():
    rows = [row(f"s{n}", gold="solo", tools=("solo",)) for n in range(3)]
    rows += [row("c", gold="cheap", tools=("cheap",)), row("d", gold="busy", tools=("busy", "cheap"))]
    rows += [row(f"b{n}", gold="busy", tools=("busy",)) for n in range(25)]
    splits = split_rows(rows, n_eval=0, unseen_fraction=0.1)
    assert (splits.held_out_tools, len(splits.unseen), splits.set_aside) == (("solo",), 3, 0)


def test_a_tool_that_too_many_rows_call_is_never_held_out():
    rows = [row(f"b{n}", gold="big", tools=("big",)) for n in range(18)]
    rows += [row(f"s{n}", gold="small", tools=("small",)) for n in range(2)]
    for seed in range(5):
        assert split_rows(rows, n_eval=0, seed=seed, unseen_fraction=0.1).held_out_tools == ("small",)


def test_rows_that_name_the_unseen_side_count_towards_its_share():
    rows = [row(f"u{n}", gold="new", tools=("new",), split="unseen") for n in range(2)]
    rows += [row(f"s{n}", gold=f"t{n}", tools=(f"t{n}",)) for n in range(18)]
    splits = split_rows(rows, n_eval=0, unseen_fraction=0.1)
    assert (splits.held_out_tools, ids(splits.unseen)) == ((), ["u0", "u1"])


def test_a_row_that_names_training_is_never_moved_to_the_unseen_side():
    rows = [row("free", gold="rare", tools=("rare",)), row("named", gold="rare", tools=("rare",), split="train")]
    rows += [row(f"b{n}", gold="busy", tools=("busy",)) for n in range(8)]
    splits = split_rows(rows, n_eval=0, unseen_fraction=0.1)
    assert (ids(splits.unseen), splits.set_aside) == (["free"], 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give n_eval or eval_fraction"),
        ({"n_eval": 1, "eval_fraction": 0.1}, "give n_eval or eval_fraction"),
        ({"n_eval": -1}, "must not be negative, got -1"),
        ({"eval_fraction": 1.0}, "between 0 and 1, got 1.0"),
        ({"n_eval": 1, "by": "source"}, "by must be 'group' or 'rows', got 'source'"),
        ({"n_eval": 1, "unseen_fraction": 1.0}, "unseen_fraction must lie in"),
        ({"n_eval": 1, "unseen_fraction": 0.1, "by": "rows"}, "needs by='group'"),
    ],
)
def test_arguments_out_of_range_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_rows(MANY, **arguments)


def test_no_rows_split_into_none():
    assert split_rows([], n_eval=3) == Splits((), ())


def test_no_call_rows_are_capped_at_their_share():
    rows = [row(f"c{n}") for n in range(70)] + [row(f"n{n}", gold=None) for n in range(60)]
    limited = limit_no_call(rows, 0.3)
    assert len(limited) == 100
    assert limited == limit_no_call(rows, 0.3)
    assert [item for item in rows if item in limited] == list(limited)
    assert limit_no_call(rows, 0.0) == tuple(rows[:70])
    assert len(limit_no_call(rows, 1.0)) == 130
    assert len(limit_no_call(rows[68:75], 0.6)) == 5  # 3 without a call, though 0.6 * 2 / 0.4 is less than 3 in floats


def test_rows_held_out_to_choose_a_checkpoint_are_whole_clusters_and_at_most_half():
    pairs = ask_in_pairs("abc")
    kept, held = hold_out(pairs, 3, seed=1)
    assert len(held) == 2 and sorted(ids(kept) + ids(held)) == sorted(ids(pairs))
    assert {name[0] for name in ids(held)}.isdisjoint(name[0] for name in ids(kept))
    assert [len(part) for part in hold_out(MANY[:7], 100)] == [4, 3]
    assert ids(hold_out(MANY, 5, seed=1)[1]) != ids(hold_out(MANY, 5, seed=2)[1])
    silent = [row("a", "A"), row("b", "B"), row("c", "A"), row("d", "B")]  # no request: only the group joins them
    assert {name for name in ids(hold_out(silent, 2)[1])} in ({"a", "c"}, {"b", "d"})


def test_a_share_out_of_range_is_an_error():
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        limit_no_call(MANY, 1.5)


ROWS = st.lists(
    st.builds(
        lambda group, gold, tools, split: row("", group, gold, ("a", *tools), **({"split": split} if split else {})),
        st.sampled_from("ABCDEFGH"),
        st.sampled_from(["a", "b", "c", None]),
        st.sets(st.sampled_from("bcde"), max_size=3).map(sorted).map(tuple),
        st.sampled_from([None, None, "train", "eval", "unseen"]),
    ),
    max_size=30,
)


@given(ROWS, st.integers(0, 20), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 3))
def test_every_row_is_accounted_for_and_no_group_leaks(rows, n_eval, unseen_fraction, seed):
    before = copy.deepcopy(rows)
    splits = split_rows(rows, n_eval=n_eval, seed=seed, unseen_fraction=unseen_fraction)
    assert rows == before
    sides = (splits.train, splits.eval, splits.unseen)
    removed = splits.duplicates + splits.conflict_rows + splits.leaks + splits.set_aside
    assert sum(len(side) for side in sides) + removed == len(rows)
    groups = Counter(item["group"] for side in sides for item in side)
    assert not groups or max(groups.values()) == 1
    for item in splits.train:
        assert item.get("split") in (None, "train")
        assert not {tool["function"]["name"] for tool in item["tools"]} & set(splits.held_out_tools)


def test_no_tool_is_held_out_where_that_would_cost_most_rows():
    """Every row declares all tools, as rows of one's own tools do, and one tool has few rows."""
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("one", "two")]
    rows = [
        {
            **{"row_id": str(n), "source": "", "scenario": "", "group": f"g{n}", "tools": tools},
            "messages": [{"role": "user", "content": f"request {n} of its own kind {n * 7919}"}],
            "gold": [{"name": "two" if n < 2 else "one", "arguments": {}}],
        }
        for n in range(40)
    ]
    splits = split_rows(rows, n_eval=10, seed=1, unseen_fraction=0.05)
    assert (splits.held_out_tools, splits.set_aside, len(splits.train), len(splits.eval)) == ((), 0, 30, 10)
