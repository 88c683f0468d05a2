"""A saved model: what its folder holds beside the weights, and who may read it."""

import json
import os
import shutil
import stat

import pytest
from transformers import AutoTokenizer, GenerationConfig

from fgtools.files import write_json
from fgtools.generate import generate_replies
from fgtools.models import load_model, load_tokenizer, response_template, save_model
from fgtools.models.lora import add_adapters, merge_adapters
from fgtools.offline import CHECKPOINT
from tests.toys import fresh_model, small_rows

FUNCTIONGEMMAS = {"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": 1, "cache_implementation": "hybrid"}


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no permissions of this kind")
@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, umask, mask, file, folder):
    umask(mask)
    saved = save_model(fresh_model(), load_tokenizer("standin"), tmp_path / "run" / "model")
    report = write_json(tmp_path / "run" / "train.json", {"steps": 1})
    (saved / "neighbour").touch()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (*saved.iterdir(), report)}
    assert set(modes.values()) == {file}, modes
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(saved.parent.stat().st_mode) == folder


def test_files_do_not_tell_how_the_base_was_loaded(tmp_path):
    files = []
    for number, options in enumerate(({}, {"local_files_only": True, "trust_remote_code": False})):
        tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT, **options)
        saved = save_model(fresh_model(), tokenizer, tmp_path / f"{number}")
        files.append((saved / "tokenizer_config.json").read_bytes())
    assert files[0] == files[1] and b"is_local" not in files[0]


@pytest.mark.parametrize("recipe", ["native", "tutorial"])
def test_the_saved_tokenizer_reads_the_recipes_calls_and_nothing_else_changes(tmp_path, recipe):
    tokenizer = load_tokenizer("standin")
    saved = save_model(fresh_model(), tokenizer, tmp_path / "model", recipe)
    assert json.loads((saved / "tokenizer_config.json").read_text())["response_template"] == response_template(recipe)
    again = AutoTokenizer.from_pretrained(saved)
    text = "<bos><start_function_call>call:f{a:<escape>x<escape>}<end_function_call>\n<start_function_response>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    other = save_model(fresh_model(), again, tmp_path / "other", "native")
    assert json.loads((other / "tokenizer_config.json").read_text())["response_template"] == response_template("native")


def test_parse_response_reads_text_and_token_ids(tmp_path):
    saved = save_model(fresh_model(), load_tokenizer("standin"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(saved)
    if not hasattr(tokenizer, "response_template"):
        pytest.skip("transformers before 5.13 reads no response template")
    text = "<start_function_call>call:f{a:<escape>x<escape>,b:[1]}<end_function_call><start_function_response>"
    expected = {"type": "function", "function": {"name": "f", "arguments": {"a": "x", "b": [1]}}}
    for reply in (text, tokenizer(text, add_special_tokens=False)["input_ids"]):
        message = tokenizer.parse_response(reply, prefix="")
        assert message == {"role": "assistant", "tool_calls": [expected]}
    tool = {"type": "function", "function": {"name": "f", "description": "F.", "parameters": {}}}
    messages = [{"role": "user", "content": "q"}, message]
    assert tokenizer.apply_chat_template(messages, tools=[tool], tokenize=False).endswith(f"model\n{text}")


@pytest.mark.parametrize("lora", [0, 2])
def test_the_stop_ids_are_saved_whatever_the_base_had(tmp_path, lora):
    if lora:
        pytest.importorskip("peft")
    model = fresh_model()
    model.generation_config = GenerationConfig(**FUNCTIONGEMMAS)
    model = merge_adapters(add_adapters(model, lora))
    for recipe in ("native", "tutorial"):
        saved = save_model(model, load_tokenizer("standin"), tmp_path / recipe, recipe)
        settings = GenerationConfig.from_pretrained(saved)
        assert (settings.eos_token_id, settings.pad_token_id, settings.bos_token_id) == ([1, 50, 106], 0, 2)
        assert (settings.do_sample, settings.top_k, settings.top_p) == (True, 64, 0.95)
        assert settings.cache_implementation is None
        settings.validate(strict=True)


FOREIGN = {
    **{"temperature": 0.3, "top_k": 9, "repetition_penalty": 1.2, "forced_bos_token_id": 5, "forced_eos_token_id": 1},
    **{"max_length": 20, "max_new_tokens": 3, "suppress_tokens": [48], "num_beams": 4, "num_assistant_tokens": 5},
    **{"stop_strings": ["call"], "cache_implementation": "static", "bad_words_ids": [[7]], "min_length": 9},
}


def test_settings_that_would_change_replies_are_named_and_not_saved_on(tmp_path, tokenizer, capsys):
    shutil.copytree(CHECKPOINT, tmp_path / "base")
    settings = {**json.loads((CHECKPOINT / "generation_config.json").read_text()), **FOREIGN}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings))
    model = load_model(tmp_path / "base", device="cpu")
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("generation settings")]
    assert all(f"{name} " in line for name in FOREIGN)
    request = small_rows(20, 1)
    assert generate_replies(model, tokenizer, request, max_new_tokens=8) == generate_replies(
        fresh_model(), tokenizer, request, max_new_tokens=8
    )
    saved = json.loads((save_model(model, tokenizer, tmp_path / "model") / "generation_config.json").read_text())
    assert not set(saved) & set(FOREIGN) and saved["do_sample"] is False
    assert capsys.readouterr().out == ""


def test_settings_that_transformers_would_not_save_stop_no_model_from_being_saved(tmp_path, tokenizer, capsys):
    model = fresh_model()
    model.generation_config = GenerationConfig(do_sample=False, temperature=0.3)
    model.generation_config.bos_token_id = 2  # changed after it was made, as the trainer changes it
    with pytest.raises(ValueError, match="temperature"):
        model.generation_config.save_pretrained(tmp_path)
    saved = save_model(model, tokenizer, tmp_path / "model")
    assert GenerationConfig.from_pretrained(saved).temperature in (None, 1.0)
    assert "neither used here nor saved on: temperature 0.3" in capsys.readouterr().out


def test_the_vocabulary_file_of_the_base_is_kept_through_a_second_training(tmp_path, monkeypatch):
    shutil.copytree(CHECKPOINT, tmp_path / "base")
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"\x0asentencepiece")
    first = save_model(fresh_model(), load_tokenizer(tmp_path / "base"), tmp_path / "first")
    second = save_model(fresh_model(), load_tokenizer(first), tmp_path / "second")
    assert (second / "tokenizer.model").read_bytes() == b"\x0asentencepiece"
    monkeypatch.chdir(tmp_path / "base")
    tokenizer = load_tokenizer("standin")
    tokenizer.name_or_path = ""
    assert not (save_model(fresh_model(), tokenizer, tmp_path / "third") / "tokenizer.model").exists()
