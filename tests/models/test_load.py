"""Models: decisions with reasons, every way to name one, errors that say what to do, whole folders."""

import json
import os
import shutil

import pytest
import torch
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from fgtools.models import ModelError, load_model, load_tokenizer, save_model
from fgtools.models.attached import name_attached_model
from fgtools.models.load import find_model, stop_ids
from fgtools.offline import CHECKPOINT
from fgtools.profiles import FUNCTIONGEMMA
from fgtools.prompts import render_prompt
from tests.toys import fresh_model


def test_the_standin_loads_and_says_where_and_why(capsys):
    model = load_model("standin", device="cpu")
    assert model.dtype == torch.float32 and not model.training
    printed = capsys.readouterr().out
    assert printed == (
        "cpu, float32: no GPU is visible, and a CPU is exact in fp32\nattention sdpa: what transformers chooses here\n"
    )


def test_a_folder_goes_before_every_other_meaning_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CHECKPOINT, tmp_path / "owner" / "name")
    assert find_model("owner/name").samefile(tmp_path / "owner" / "name")


def test_a_kagglehub_handle_is_fetched_through_kagglehub(monkeypatch):
    import kagglehub

    asked = []
    monkeypatch.setattr(kagglehub, "model_download", lambda handle: asked.append(handle) or str(CHECKPOINT))
    assert find_model(FUNCTIONGEMMA) == find_model(FUNCTIONGEMMA + "/1") == CHECKPOINT
    assert asked == [FUNCTIONGEMMA, FUNCTIONGEMMA + "/1"]


@pytest.mark.parametrize("layout", ["models/google/functiongemma/Transformers/{}", "functiongemma/transformers/{}"])
def test_a_model_attached_on_kaggle_is_found_without_kagglehub(layout, tmp_path, monkeypatch, capsys):
    import kagglehub

    def refuse(handle):
        raise ConnectionError(handle)

    monkeypatch.setattr(kagglehub, "model_download", refuse)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_CACHE_MOUNT_FOLDER", str(tmp_path))
    for version in ("2", "10", "old"):
        shutil.copytree(CHECKPOINT, tmp_path / layout.format("functiongemma-270m-it") / version)
    (tmp_path / layout.format("functiongemma-270m-it") / "11").mkdir()  # holds no model
    for handle, version in ((FUNCTIONGEMMA, "10"), (FUNCTIONGEMMA + "/2", "2")):
        assert find_model(handle) == tmp_path / layout.format("functiongemma-270m-it") / version
    load_model(FUNCTIONGEMMA, device="cpu")
    assert capsys.readouterr().out.startswith(f"model: attached, {tmp_path}")
    for handle in (FUNCTIONGEMMA + "/3", FUNCTIONGEMMA.replace("google", "google-x").replace("functiongemma/", "fg/")):
        with pytest.raises(ModelError, match=r"Add Input, Models"):
            find_model(handle)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    with pytest.raises(ModelError, match="kagglehub could not fetch"):
        find_model(FUNCTIONGEMMA)


def test_the_folder_of_an_attached_model_has_its_handle_as_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "models" / FUNCTIONGEMMA / "1"
    assert name_attached_model(folder) == ""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_CACHE_MOUNT_FOLDER", str(tmp_path))
    assert name_attached_model(str(folder)) == FUNCTIONGEMMA + "/1"
    assert name_attached_model(folder.parent) == name_attached_model(tmp_path / "x") == ""


def test_a_hub_id_is_fetched_through_the_hub(monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *how, **more: asked.append((how, more)) or str(CHECKPOINT)
    )
    assert find_model("google/functiongemma-270m-it") == CHECKPOINT
    assert asked == [(("google/functiongemma-270m-it",), {"ignore_patterns": ["*.gguf"]})]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ConnectionError("no route"), "check the internet connection"),
        (ValueError("Invalid model handle"), "ValueError: check the handle"),
        ("UnauthenticatedError", "accept it on the model's Kaggle page and set KAGGLE_API_TOKEN"),
        ("NotFoundError", "Kaggle has no model of that handle.*check the spelling"),
    ],
)
def test_kaggle_without_network_or_consent_says_what_to_do(monkeypatch, error, remedy):
    import kagglehub
    from kagglehub import exceptions

    raised = getattr(exceptions, error)() if isinstance(error, str) else error

    def refuse(handle):
        raise raised

    monkeypatch.setattr(kagglehub, "model_download", refuse)
    with pytest.raises(ModelError, match=f"kagglehub could not fetch .*{remedy}") as caught:
        load_model(FUNCTIONGEMMA)
    assert ("set KAGGLE_API_TOKEN" in str(caught.value)) == (error == "UnauthenticatedError")  # where a login helps


@pytest.mark.parametrize("kind", [LocalEntryNotFoundError, HTTPError])
def test_the_hub_without_network_says_what_to_do(monkeypatch, kind):
    import huggingface_hub

    def refuse(name, **how):
        raise kind("hf_secret is in this text")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"the (hub could not give the )?model 'a/b'") as caught:
        load_tokenizer("a/b")
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "must be an existing folder, but './nowhere' does not exist"),
        ("/nowhere/at/all", "does not exist: check the path"),
        ("functiongemma", "MODEL must be 'standin', an existing folder or .gguf file, a hub id"),
        ("", "MODEL must be 'standin'"),
        ("a b/c", "MODEL must be 'standin'"),
    ],
)
def test_names_that_are_no_model_are_explained(name, message):
    with pytest.raises(ModelError, match=message):
        find_model(name)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_text("x")
    with pytest.raises(ModelError, match=r"must be a folder or a \.gguf file, got the file"):
        find_model(str(tmp_path / "model.safetensors"))


def copied(tmp_path, *without):
    shutil.copytree(CHECKPOINT, tmp_path / "copy")
    for name in without:
        (tmp_path / "copy" / name).unlink()
    return str(tmp_path / "copy")


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"'copy' must hold weights \(model.safetensors\), but holds none"):
        load_model(copied(tmp_path, "model.safetensors"))


def test_a_folder_without_config_or_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"must hold tokenizer_config.json"):
        load_tokenizer(copied(tmp_path, "tokenizer_config.json"))
    os.remove(tmp_path / "copy" / "config.json")
    with pytest.raises(ModelError, match=r"must hold config.json"):
        load_model(str(tmp_path / "copy"))


def test_broken_weights_are_named(tmp_path):
    folder = copied(tmp_path)
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ModelError, match=r"copy/model\.safetensors must be a whole"):
        load_model(folder)


def test_weights_that_lack_a_layer_are_not_filled_with_noise(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copied(tmp_path)
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    name = next(name for name in weights if "layers.1" in name)
    del weights[name]
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing, such as model\.layers\.1"):
        load_model(folder)


def test_a_tokenizer_without_template_or_call_marks_is_named(tmp_path):
    folder = copied(tmp_path, "chat_template.jinja")
    with pytest.raises(ModelError, match="must carry a chat template"):
        load_tokenizer(folder)
    shutil.copy(CHECKPOINT / "chat_template.jinja", folder)
    path = tmp_path / "copy" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != "<escape>"]
    content["model"]["vocab"] = [
        ["<unused>", score] if token == "<escape>" else [token, score] for token, score in content["model"]["vocab"]
    ]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="must know <escape> as one token, but splits it"):
        load_tokenizer(folder)


def test_stop_ids_are_functiongemmas():
    assert stop_ids(load_tokenizer("standin")) == [1, 50, 106]


def test_a_save_that_fails_leaves_the_older_folder_and_no_scraps(tmp_path, monkeypatch):
    model, tokenizer = fresh_model(), load_tokenizer("standin")
    (tmp_path / "model").mkdir()

    def fail(folder):
        raise OSError("disk full")

    monkeypatch.setattr(tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(model, tokenizer, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_saved_model_is_whole_and_loads_in_plain_transformers(tmp_path):
    model, tokenizer = fresh_model(), load_tokenizer("standin")
    model.config.use_cache = False
    model.generation_config = GenerationConfig(do_sample=True, top_k=64)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.bin").write_text("of another run")
    folder = save_model(model, tokenizer, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "chat_template.jinja" in names and "old.bin" not in names
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert again.config.use_cache is True
    assert again.generation_config.eos_token_id == [1, 50, 106] and again.generation_config.top_k == 64
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template
    ids = torch.tensor([[2, 105, 107, 106]])
    with torch.inference_mode():
        assert torch.equal(again(ids).logits, fresh_model()(ids).logits)


def test_a_chat_template_of_ones_own_needs_no_more_than_the_vocabulary(tmp_path):
    shutil.copy(CHECKPOINT / "tokenizer.json", tmp_path)
    with pytest.raises(ModelError, match=r"must hold config\.json"):
        load_tokenizer(tmp_path)
    standin, bare = load_tokenizer("standin"), load_tokenizer(tmp_path, "standin")
    assert bare.chat_template == standin.chat_template and bare.bos_token_id == standin.bos_token_id == 2
    (tmp_path / "own.jinja").write_text("{{ bos_token }}own")
    for folder in (tmp_path, "standin"):
        assert (
            render_prompt([{"role": "user", "content": "q"}], None, load_tokenizer(folder, tmp_path / "own.jinja"))
            == "<bos>own"
        )
    with pytest.raises(ModelError, match=r"the chat template 'nowhere' must be a Jinja file"):
        load_tokenizer("standin", "nowhere")
