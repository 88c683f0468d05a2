import json
import shutil

import gguf
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from fgtools.calls.tokens import END_CALL, ESCAPE, START_CALL, START_RESPONSE
from fgtools.files import FileError, InputError
from fgtools.offline import CHECKPOINT
from fgtools.serve.gguf import write_gguf
from fgtools.serve.llama import LlamaError, LlamaServer
from fgtools.serve.vocabulary import ExportError, TokenType, build_vocabulary
from tests.toys import save_odd_model


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    """The stand-in, written without rounding."""
    return write_gguf(CHECKPOINT, tmp_path_factory.mktemp("gguf") / "standin.gguf", "f32")


@pytest.fixture
def folder(tmp_path):
    """A copy of the stand-in, to be spoilt."""
    return shutil.copytree(CHECKPOINT, tmp_path / "model")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of a random model with another scale of attention and alternating layers, and the file of it."""
    folder = save_odd_model(tmp_path_factory.mktemp("odd") / "model")
    write_gguf(folder, folder / "odd.gguf", "f32")
    return folder


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def read(path):
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}, {one.name: one for one in reader.tensors}


def test_norms_are_stored_plus_one_and_the_scale_of_attention_lies_in_the_norm_of_the_queries(f32, odd):
    weights, (_, tensors) = load_file(odd / "model.safetensors"), read(odd / "odd.gguf")
    layer = "model.layers.1.self_attn"
    assert tensors["blk.1.attn_k_norm.weight"].data == pytest.approx(weights[f"{layer}.k_norm.weight"] + 1)
    scaled = (weights[f"{layer}.q_norm.weight"] + 1) * (32 / 8) ** 0.5
    assert tensors["blk.1.attn_q_norm.weight"].data == pytest.approx(scaled)
    assert (tensors["blk.1.attn_q.weight"].data == weights[f"{layer}.q_proj.weight"]).all()
    weights, (_, tensors) = load_file(CHECKPOINT / "model.safetensors"), read(f32.path)
    assert tensors["blk.1.attn_q_norm.weight"].data == pytest.approx(weights[f"{layer}.q_norm.weight"] + 1)
    assert f32.tensors == {"f32": 80} and f32.size == f32.path.stat().st_size


def test_llama_cpp_computes_another_scale_of_attention_and_another_pattern_of_layers(odd):
    """llama.cpp keeps keys and values in f16; the wrong scale or pattern moves these logarithms by 0.5 and more."""
    prompt = torch.randint(300, 2600, (1, 40), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = AutoModelForCausalLM.from_pretrained(odd)(prompt).logits[0, -1].log_softmax(-1)
    with LlamaServer(odd / "odd.gguf", 512) as server:
        body = {"prompt": prompt[0].tolist(), "n_predict": 1, "temperature": 0, "n_probs": 20}
        likely = server._post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
    assert [one["logprob"] for one in likely] == pytest.approx([wanted[one["id"]].item() for one in likely], abs=0.02)


def test_the_file_holds_the_template_the_pattern_of_the_layers_and_the_end_of_a_message(f32, tokenizer):
    fields, _ = read(f32.path)
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    assert fields["gemma3.attention.sliding_window_pattern"] == 6
    assert fields["tokenizer.ggml.eom_token_id"] == 50 and fields["tokenizer.ggml.eot_token_id"] == 106
    types = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert {types[mark] for mark in (START_CALL, END_CALL, ESCAPE)} == {TokenType.USER_DEFINED}
    assert types[START_RESPONSE] == TokenType.CONTROL and types["<0x41>"] == TokenType.BYTE


def test_tensors_of_one_dimension_are_exact_and_small_formats_keep_the_embedding(tmp_path):
    small = write_gguf(CHECKPOINT, tmp_path / "small.gguf", "q4_0")
    assert small.tensors == {"q4_0": 42, "f32": 37, "q8_0": 1}
    assert read(small.path)[1]["token_embd.weight"].tensor_type.name == "Q8_0"
    assert small.size < write_gguf(CHECKPOINT, tmp_path / "f16.gguf", "f16").size / 2


def test_a_width_that_blocks_do_not_divide_stays_in_f16_and_is_counted(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "mlp" in name]:
        cut = weights[name][:, :272] if "down" in name else weights[name][:272]
        weights[name] = cut.copy()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, intermediate_size=272)
    assert write_gguf(folder, tmp_path / "odd.gguf", "q8_0").tensors == {"f32": 37, "q8_0": 37, "f16": 6}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "must hold weights"),
        (lambda folder: change_config(folder, model_type="llama"), "gemma3_text"),
        (
            lambda folder: change_config(folder, num_hidden_layers=7, layer_types=["full_attention"] * 7),
            "13 are missing",
        ),
        (lambda folder: change_config(folder, num_hidden_layers=5, layer_types=["full_attention"] * 5), "13 unknown"),
        (
            lambda folder: change_config(folder, layer_types=["full_attention", *["sliding_attention"] * 5]),
            "every n-th",
        ),
        (lambda folder: change_config(folder, final_logit_softcapping=30.0), "soft cap"),
        (lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"), "LoRA adapters alone"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}'), "--base"),
    ],
)
def test_what_cannot_be_written_is_named_and_no_file_is_left(folder, tmp_path, spoil, message):
    spoil(folder)
    with pytest.raises(ExportError, match=message):
        write_gguf(folder, tmp_path / "out" / "model.gguf", "f16")
    assert not list((tmp_path / "out").glob("*"))


def test_an_unknown_type_names_those_there_are():
    with pytest.raises(InputError, match="f32, f16, bf16"):
        write_gguf(CHECKPOINT, "unused.gguf", "q4_k_m")


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_text("older")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", fail)
    with pytest.raises(FileError, match="No space left"):
        write_gguf(CHECKPOINT, path, "f16")
    assert [one.name for one in tmp_path.iterdir()] == ["model.gguf"] and path.read_text() == "older"


def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'fgtools\[gguf\]'"):
        write_gguf(CHECKPOINT, tmp_path / "model.gguf")


def test_the_vocabulary_of_a_base_is_taken_with_the_tokenizers_own_added_tokens(f32, folder, tmp_path):
    path = folder / "tokenizer.json"
    saved = json.loads(path.read_text())
    renamed = [one | {"content": "<response>"} if one["id"] == 51 else one for one in saved["added_tokens"]]
    path.write_text(json.dumps({"model": {"type": "WordPiece"}, "added_tokens": renamed}))
    written = write_gguf(folder, tmp_path / "model.gguf", "f16", f32.path)
    old, new = (read(one.path)[0]["tokenizer.ggml.tokens"] for one in (f32, written))
    assert [(a, b) for a, b in zip(old, new, strict=True) if a != b] == [("<end_function_response>", "<response>")]
    with pytest.raises(ExportError, match="must be a GGUF file"):
        write_gguf(folder, tmp_path / "model.gguf", "f16", folder / "config.json")


def test_merges_are_scored_by_their_order_and_tokens_without_a_row_are_told():
    tokenizer = {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "model": {"type": "BPE", "byte_fallback": True, "vocab": {"<pad>": 0, "<0x0A>": 1, "▁a": 2, "b": 3}},
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": True},
            {"id": 4, "content": "<image>", "special": True},
        ],
    }
    vocabulary = build_vocabulary(tokenizer, 3)
    assert vocabulary.tokens == ("<pad>", "<0x0A>", "▁a") and vocabulary.scores[2] < vocabulary.scores[1]
    assert vocabulary.types == (TokenType.CONTROL, TokenType.BYTE, TokenType.NORMAL)
    assert vocabulary.left_out == ("<image>", "b")
    assert build_vocabulary(tokenizer, 6).types[3:] == (TokenType.NORMAL, TokenType.CONTROL, TokenType.UNUSED)


def test_the_server_splits_text_as_the_tokenizer_and_says_how_it_failed(f32, tokenizer):
    with LlamaServer(f32.path, 512) as server:
        for text in (
            "<bos>hello set_alarm",
            f"{START_CALL}call:x{{a:{ESCAPE}v{ESCAPE}}}{END_CALL}",
            "a }} b }},type: x",
        ):
            assert server.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
        with pytest.raises(LlamaError, match="must answer /completion"):
            server.complete([99999999], 4)
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(LlamaError, match="must start, but ended"):
            LlamaServer(f32.path, 512, port)
        server._process.kill()
        with pytest.raises(LlamaError, match="exit status -9"):
            server.complete([2], 4)


def test_a_file_that_is_no_model_is_told(tmp_path):
    (tmp_path / "model.gguf").write_text("no model")
    with pytest.raises(LlamaError, match="must start, but ended"):
        LlamaServer(tmp_path / "model.gguf")
    with pytest.raises(InputError, match="existing GGUF file"):
        LlamaServer(tmp_path / "none.gguf")
