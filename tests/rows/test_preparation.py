"""Preparing: every raw row ends somewhere, the same for any number of processes, and small in memory."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from fgtools.files import DataFileError
from fgtools.offline.samples import build_samples
from fgtools.profiles import RECIPES, adapt_recipe
from fgtools.rows import Prepared, build_rows, limit_no_call, load_raw_rows, prepare, split_rows
from fgtools.rows.funnel import EmptySetError
from fgtools.rows.preparation import FunnelError, describe_sums, load_requests
from fgtools.rows.remedies import Coverage
from fgtools.rows.store import PackedRows, pack_row

N_ROWS = 1300


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Rows without sides of their own, some of them twice, some with another gold."""
    rows = [{key: value for key, value in row.items() if key != "split"} for row in build_samples(N_ROWS - 100, 5)]
    rows += [{**row, "row_id": f"copy {row['row_id']}"} for row in rows[:100]]
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(path, folder, recipe="native", **options):
    prepared = prepare(load_raw_rows(str(path), N_ROWS, 40), recipe, 100, 40, **options)
    prepared.write(folder)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_one_and_two_processes_write_the_same_bytes(path, tmp_path, recipe):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = written(path, tmp_path / "one", recipe, processes=1)
    assert one == written(path, tmp_path / "two", recipe, processes=2)
    assert set(one) == {"rows.train.jsonl", "rows.eval.jsonl", "rows.unseen.jsonl", "funnel.json"}


def test_the_funnel_adds_up_by_source_scenario_and_side(path, tmp_path):
    written(path, tmp_path)
    funnel = json.loads((tmp_path / "funnel.json").read_text())
    assert funnel["rows_in"] == sum(funnel["funnel"].values()) == N_ROWS == sum(funnel["shapes"].values())
    for part in ("by_source", "by_scenario"):
        total = Counter()
        for counts in funnel[part].values():
            total.update(counts)
        assert total == Counter(funnel["funnel"])
    for reason, examples in funnel["examples"].items():
        assert 1 <= len(examples) <= 3 and len(examples) == min(3, funnel["funnel"][reason])
    split = funnel["split"]
    gone = ("no_call_dropped", "duplicates", "conflict_rows", "leaks", "set_aside", "overlaps")
    assert (
        split["train"] + split["eval"] + split["unseen"] + sum(split[name] for name in gone)
        == (funnel["funnel"]["kept"])
    )
    assert split["duplicates"] >= 90 and funnel["row_wise_split_would_leak"]["exact"] > 0


def test_sums_that_do_not_add_up_are_a_fault(path):
    prepared = prepare(load_raw_rows(str(path), 300, 40), "native", 20, 40)
    with pytest.raises(FunnelError, match="must add up to"):
        replace(prepared, splits=replace(prepared.splits, duplicates=10_000)).to_funnel()


def test_rows_are_those_of_build_rows(path):
    raw = load_raw_rows(str(path), 400, 40)
    prepared = prepare(raw, "native", 30, 40)
    plain = build_rows(raw.rows)
    assert tuple(prepared.rowset.rows) == plain.rows
    for name in ("funnel", "problems", "changes", "type_words", "shapes", "rejected"):
        assert getattr(prepared.rowset, name) == getattr(plain, name), name


COVERAGE = Coverage(hidden_facts=frozenset({("integer", "default"), ("string", "default"), ("string", "enum")}))


@pytest.mark.parametrize("recipe", [RECIPES["native"], RECIPES["tutorial"]], ids=str)
@pytest.mark.parametrize("sides", ["sides of their own", "no sides"])
def test_the_steps_one_by_one_write_the_same_bytes(path, tmp_path, recipe, sides):
    raw = load_raw_rows("sample" if sides == "sides of their own" else str(path), 900, 40)
    benchmark = [raw.rows[0]["task"]]
    rowset = build_rows(raw.rows, recipe, coverage=COVERAGE)
    splits = split_rows(
        rowset.rows,
        n_eval=rowset.count_last(90) if recipe.split == "rows" else 90,
        seed=40,
        by=recipe.split,
        unseen_fraction=recipe.unseen_fraction,
        benchmark=benchmark,
    )
    train = limit_no_call(splits.train, recipe.no_call_share, 40)
    Prepared(rowset, splits, train, 90, 40, raw.origin, recipe, raw.available).write(tmp_path / "steps")
    prepare(raw, recipe, 90, 40, coverage=COVERAGE, benchmark=benchmark).write(tmp_path / "prepare")
    written = {file.name: file.read_bytes() for file in (tmp_path / "steps").iterdir()}
    assert written == {file.name: file.read_bytes() for file in (tmp_path / "prepare").iterdir()}
    assert len(written) == 4 and bool(json.loads(written["funnel.json"])["remedies"]) == recipe.apply_remedies


def test_a_side_without_rows_is_told_by_the_steps_too(path):
    raws = [*build_samples(60, 5), *[{"row_id": f"bad {n}"} for n in range(12)]]
    rowset = build_rows(raws, "tutorial")
    n_eval = rowset.count_last(12)
    splits = split_rows(rowset.rows, n_eval=n_eval, seed=40, by="rows")
    with pytest.raises(EmptySetError, match=rf"eval got none of the {len(rowset.rows)} usable rows of 72: take more"):
        Prepared(rowset, splits, splits.train, 12, 40, "sample", RECIPES["tutorial"], len(raws))


def test_the_tutorial_cuts_the_raw_rows_before_it_filters_them():
    raws = [*build_samples(60, 5), *[{"row_id": f"bad {n}"} for n in range(20)]]
    rowset = build_rows(raws, "tutorial")
    assert rowset.count_last(20) == 0 and rowset.count_last(0) == 0
    last = {row["row_id"] for row in raws[-40:]}
    assert rowset.count_last(40) == sum(row["row_id"] in last for row in rowset.rows) > 0
    assert rowset.count_last(1000) == rowset.count_last(40)  # at most half of the raw rows


def test_equal_ids_are_told_apart_over_all_parts(tmp_path):
    rows = [{**row, "row_id": "same"} for row in build_samples(1200, 3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = prepare(load_raw_rows(str(tmp_path / "rows.jsonl"), 1200, 40), "native", 50, 40)
    ids = [*(row["row_id"] for row in prepared.rowset.rows), *(item.row_id for item in prepared.rowset.rejected)]
    assert sorted(ids) == sorted(["same", *(f"same#{number}" for number in range(2, 1201))])


def test_the_share_of_rows_without_a_call_is_what_was_asked(path):
    raw = load_raw_rows(str(path), N_ROWS, 40)
    for share in (0.0, 0.05):
        prepared = prepare(raw, adapt_recipe(RECIPES["native"], share), 50, 40)
        without = sum(not row["gold"] for row in prepared.train)
        assert without <= share * len(prepared.train) and (without > 0) == (share > 0)


def test_remedies_are_the_native_recipes_alone(path):
    raw = load_raw_rows(str(path), 200, 40)
    assert sum(prepare(raw, "native", 20, 40, coverage=COVERAGE).rowset.remedies.values()) > 0
    assert not prepare(raw, "tutorial", 20, 40, coverage=COVERAGE).rowset.remedies


def test_a_benchmarks_questions_are_not_trained_on(path, tmp_path):
    raw = load_raw_rows(str(path), N_ROWS, 40)
    trained = prepare(raw, "native", 50, 40).train
    question = next(row for row in trained if len(row["messages"]) == 2)["messages"][-1]["content"]
    (tmp_path / "bench.json").write_text(
        json.dumps([{"id": "simple_1", "question": [[{"role": "user", "content": question}]], "function": []}])
    )
    (tmp_path / "bench.txt").write_text(f"{question.upper()}\n\n  \nAnother one\n")
    for name, n_requests in (("bench.json", 1), ("bench.txt", 2)):
        requests = load_requests(tmp_path / name)
        assert len(requests) == n_requests
        prepared = prepare(raw, "native", 50, 40, benchmark=requests)
        assert prepared.splits.overlaps >= 1
        assert question not in {row["messages"][-1]["content"] for row in prepared.train}


def test_a_malformed_line_far_down_is_named_and_nothing_is_written(path, tmp_path):
    lines = path.read_text().splitlines()
    lines[900] = '{"conversations": [}'
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    for processes in (1, 2):
        with pytest.raises(DataFileError, match=r"bad\.jsonl, line 901"):
            prepare(load_raw_rows(str(tmp_path / "bad.jsonl"), N_ROWS, 40), "native", 50, 40, processes=processes)


def test_packed_rows_are_the_rows():
    rows = build_rows(build_samples(40, 1)).rows
    packed = PackedRows([pack_row(row) for row in rows])
    assert tuple(packed) == rows and packed[-1] == rows[-1] and tuple(packed[3:5]) == rows[3:5]
    assert [json.loads(line) for line in packed.lines()] == list(rows)
    first = packed[0]
    first["tools"].clear()
    assert packed[0] == rows[0]


def test_the_counts_that_are_printed_add_up():
    raw = load_raw_rows("sample", 400, 40)
    for recipe in ("native", "tutorial"):
        funnel = prepare(raw, recipe, n_eval=40, seed=40).to_funnel()
        for line in describe_sums(funnel).splitlines():
            total, parts = line.split(": ", 1)[1].split(" = ")
            counts = [int(part.split(" ")[0].replace(",", "")) for part in parts.split(" + ")]
            assert int(total.split(" ")[0].replace(",", "")) == sum(counts)
    assert describe_sums({**funnel, "available": 9000}).startswith("rows taken: 400 of 9,000 (N_TOTAL) = ")
