"""A GGUF file as MODEL: exact where nothing is quantised, FunctionGemma's tokenizer, and errors that say what to do."""

import builtins
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fgtools.calls.tokens import ESCAPE, START_CALL
from fgtools.generate import generate_replies
from fgtools.gguf import GgufHeader, read_gguf
from fgtools.models import ModelError, load_model, load_tokenizer, save_model
from fgtools.models.gguf import build_config, load_gguf_model
from fgtools.models.gguf_vocabulary import build_tokenizer, read_tokens
from fgtools.models.load import describe_gguf, find_model
from fgtools.offline import CHECKPOINT
from fgtools.serve.gguf import write_gguf
from fgtools.serve.vocabulary import build_vocabulary
from tests.toys import SHARED, fresh_model, save_odd_model, small_rows

FILE = Path("x.gguf")


@pytest.fixture(scope="module")
def f32(tmp_path_factory):
    """The stand-in as a GGUF file, without rounding."""
    return write_gguf(CHECKPOINT, tmp_path_factory.mktemp("gguf") / "f32.gguf", "f32").path


@pytest.fixture
def spoil(f32, monkeypatch):
    """Give a function that changes what the header of every GGUF file says; None takes a value away."""

    def change(**values):
        whole = read_gguf(f32)
        said = {key: value for key, value in {**whole.metadata, **values}.items() if value is not None}
        header = dataclasses.replace(whole, metadata=said)
        monkeypatch.setattr("fgtools.models.gguf.read_gguf", lambda path: header)
        return header

    return change


def compute_logits(model):
    """Return the logits of random texts."""
    ids = torch.randint(0, model.config.vocab_size, (4, 60), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(ids).logits


def test_a_file_without_rounding_gives_the_same_logits_and_the_same_replies(f32, model, tokenizer):
    loaded, rows = load_model(f32, device="cpu", quiet=True), small_rows(60, 6)
    assert compute_logits(loaded).equal(compute_logits(model))
    own = generate_replies(loaded, load_tokenizer(f32), rows, max_new_tokens=48)
    assert own == generate_replies(model, tokenizer, rows, max_new_tokens=48)
    assert loaded.generation_config.eos_token_id == [1, 50, 106] and not loaded.training


def test_the_config_is_the_models_own(f32):
    own = AutoModelForCausalLM.from_pretrained(CHECKPOINT).config.to_dict()
    read = load_model(f32, device="cpu", quiet=True).config.to_dict()
    other = {"initializer_range", "architectures", "_name_or_path"}  # they say nothing of a trained model
    assert {name for name in own if own[name] != read[name]} <= other
    assert read["rope_parameters"]["sliding_attention"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert read["layer_types"] == ["sliding_attention"] * 5 + ["full_attention"] and read["rms_norm_eps"] == 1e-6


def test_another_scale_of_attention_and_another_pattern_of_layers_come_back(tmp_path):
    """The scale lies in the norm of the queries, so the config names Gemma 3's own; the logits are the same."""
    own = AutoModelForCausalLM.from_pretrained(save_odd_model(tmp_path / "odd"))
    read = load_model(write_gguf(tmp_path / "odd", tmp_path / "odd.gguf", "f32").path, device="cpu", quiet=True)
    assert read.config.layer_types == own.config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert (own.config.query_pre_attn_scalar, read.config.query_pre_attn_scalar) == (8, 32)
    assert compute_logits(read).equal(compute_logits(own))


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_halves_are_taken_as_they_are(tmp_path, kind):
    path = write_gguf(CHECKPOINT, tmp_path / "half.gguf", kind).path
    own, dtype = fresh_model().state_dict(), {"bf16": torch.bfloat16, "f16": torch.float16}[kind]
    for name, weight in load_gguf_model(path, torch.float32).state_dict().items():
        if "norm" not in name:
            assert weight.dtype == torch.float32 and torch.equal(weight, own[name].to(dtype).float()), name
        else:
            assert torch.equal(weight, own[name] + 1 - 1), name
    assert "none is quantised, so they are taken as they are" in describe_gguf(path)


def test_quantised_weights_are_turned_back_in_pieces_and_it_is_said_what_was_lost(tmp_path, monkeypatch, capsys):
    import gguf

    path = write_gguf(CHECKPOINT, tmp_path / "small.gguf", "q4_0").path
    monkeypatch.setattr("fgtools.models.gguf._NUMBERS_AT_ONCE", 96 * 10)
    loaded = load_model(path, device="cpu")
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name in ("token_embd.weight", "blk.2.ffn_down.weight"):
            name = {"token_embd.weight": "model.embed_tokens.weight"}.get(
                tensor.name, "model.layers.2.mlp.down_proj.weight"
            )
            wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert (loaded.state_dict()[name].numpy() == wanted).all()
    printed = capsys.readouterr().out
    assert "small.gguf: weights 72.4% Q4_0, 27.3% Q8_0, 0.3% F32; turned back into fp32, without the fine" in printed
    assert "replies stop at ids 1, 50, 106; chat template: the file's" in printed
    assert "cpu, float32: no GPU is visible" in printed
    load_model(path, device="cpu", quiet=True)
    assert capsys.readouterr().out == ""


def test_it_is_saved_as_a_plain_folder(f32, tmp_path):
    loaded = load_model(f32, device="cpu", quiet=True)
    folder = save_model(loaded, load_tokenizer(f32), tmp_path / "model")
    saved = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in saved and saved["architectures"] == ["Gemma3ForCausalLM"]
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in again.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder).chat_template == load_tokenizer("standin").chat_template
    assert str(f32.parent) not in "".join(file.read_text() for file in folder.glob("*.json"))


def test_positions_may_be_scaled_and_layers_listed_one_by_one(spoil):
    scaled = spoil(
        **{
            "gemma3.rope.scaling.type": "linear",
            "gemma3.rope.scaling.factor": 8.0,
            "gemma3.rope.freq_base_swa": None,
            "gemma3.attention.sliding_window_pattern": (True, False, False, True, True, True),
            "gemma3.final_logit_softcapping": 30.0,
        }
    )
    config = build_config(scaled, FILE)
    assert config.rope_parameters["full_attention"] == {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    assert config.rope_parameters["sliding_attention"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert [name[:4] for name in config.layer_types] == ["slid", "full", "full", "slid", "slid", "slid"]
    assert config.final_logit_softcapping == 30.0
    ollamas = spoil(
        **{
            "gemma3.rope.freq_base": None,
            "gemma3.rope.freq_base_swa": None,
            "gemma3.rope.global.freq_base": 5e5,
            "gemma3.rope.local.freq_base": 2e4,
        }
    )
    bases = {name: one["rope_theta"] for name, one in build_config(ollamas, FILE).rope_parameters.items()}
    assert bases == {"full_attention": 5e5, "sliding_attention": 2e4}
    large = spoil(**{"gemma3.block_count": 62, "gemma3.attention.sliding_window_pattern": None})
    config = build_config(large, FILE)
    assert config.query_pre_attn_scalar == 96 // 4
    assert [number for number, name in enumerate(config.layer_types) if name == "full_attention"] == [*range(5, 62, 6)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "llama"}, r"must hold a Gemma 3 text model .* got 'llama': give another file"),
        ({"general.architecture": "clip"}, "got 'clip'"),
        ({"split.count": 3}, "is one of 3 parts: join them with llama.cpp's llama-gguf-split --merge"),
        ({"tokenizer.ggml.tokens": None}, "got 0 tokens for 2,680 rows: give a file that holds both"),
        ({"tokenizer.ggml.tokens": ("<pad>", "<eos>")}, "got 2 tokens for 2,680 rows"),
        ({"gemma3.context_length": None}, r"gemma3\.context_length is missing: convert the model with llama\.cpp"),
        ({"gemma3.rope.freq_base": None}, r"gemma3\.rope\.freq_base is missing"),
        ({"gemma3.vision.block_count": 27}, r"gemma3\.vision\.block_count is not known here"),
        ({"gemma3.attention.value_length": 64}, r"attention\.value_length equal to 32, got 64"),
        ({"gemma3.rope.scaling.type": "yarn"}, "scale positions linearly or not at all, .* got 'yarn'"),
        ({"gemma3.block_count": 7}, r"13 are missing or unknown, such as blk\.6\.attn_k\.weight \(missing\)"),
        ({"gemma3.block_count": 5}, r"13 are missing or unknown, such as blk\.5\.attn_k\.weight \(unknown\)"),
        (
            {"gemma3.attention.sliding_window_pattern": (True, False)},
            "for each of 6 layers .* or a whole n from 1, got 2",
        ),
        ({"gemma3.attention.sliding_window_pattern": 0}, "for each of 6 layers .* or a whole n from 1, got 0: convert"),
        ({"gemma3.feed_forward_length": 96}, r"ffn_.* of shape .*as its own metadata say, got"),
    ],
)
def test_a_file_that_is_no_whole_gemma_says_what_to_do(f32, spoil, changes, message):
    spoil(**changes)
    with pytest.raises(ModelError, match=message):
        load_model(f32, device="cpu", quiet=True)


@pytest.mark.parametrize("size", [0, 3, 10, 100, 40_000, -1, -4000])
def test_a_file_that_is_cut_off_is_told_as_such(f32, tmp_path, size):
    (tmp_path / "cut.gguf").write_bytes(f32.read_bytes()[:size])
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelError, match=r"cut\.gguf must (be a|have).*: (it is cut off, |check|download)"):
            load(tmp_path / "cut.gguf")


def test_a_file_that_is_no_gguf_is_told_as_such(tmp_path):
    (tmp_path / "x.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"x\.gguf must be a GGUF file of version 2 or 3, but begins otherwise"):
        load_model(tmp_path / "x.gguf")


def test_without_the_package_it_says_how_to_install_it(f32, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "gguf":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModelError, match=r"f32\.gguf is read with the package gguf, .* pip install gguf"):
        load_model(f32)


def test_a_folder_of_gguf_files_is_told_to_name_one(f32, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).symlink_to(f32)
    with pytest.raises(ModelError, match=r"one of the 2 GGUF files in .* give '.*/a\.gguf', or b\.gguf"):
        load_model(tmp_path)


def test_files_that_are_not_there_are_named():
    with pytest.raises(ModelError, match=r"MODEL must be an existing GGUF file, but 'models/x\.gguf' does not exist"):
        find_model("models/x.gguf")


def test_a_file_of_the_hub_is_fetched_alone(f32, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names) or str(f32))
    assert find_model("owner/functiongemma-GGUF:sub/x-BF16.gguf") == f32
    assert asked == [("owner/functiongemma-GGUF", "sub/x-BF16.gguf")]

    def refuse(*names):
        raise ConnectionError

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ModelError, match="the hub cannot be reached for the model 'a/b'"):
        load_model("a/b:x.gguf")


def test_a_repository_of_gguf_files_is_told_to_name_one(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **how: asked.append((name, how)) or str(tmp_path)
    )
    with pytest.raises(ModelError, match=r"where it offers GGUF files, name one, as in 'a/b-GGUF:file\.gguf'"):
        load_model("a/b-GGUF")
    assert asked == [("a/b-GGUF", {"ignore_patterns": ["*.gguf"]})]


def test_a_base_models_unused_tokens_become_control_tokens_and_its_template_is_not_used(f32, spoil):
    tokens = list(read_gguf(f32).metadata["tokenizer.ggml.tokens"])
    tokens[46:53] = [f"<unused{number}>" for number in range(40, 47)]
    header = spoil(**{"tokenizer.ggml.tokens": tuple(tokens), "tokenizer.chat_template": "{{ messages }}"})
    named, count = read_tokens(header, FILE)
    assert count == 7 and (named[48], named[52]) == (START_CALL, ESCAPE) and header.metadata["tokenizer.ggml.tokens"]
    assert "7 of them unused ones of a base model, named here" in describe_gguf(f32)
    assert "this package's, which renders as FunctionGemma's, since the file's declares no tools" in describe_gguf(f32)
    spoil(**{"tokenizer.ggml.tokens": tuple(tokens), "tokenizer.chat_template": None})
    assert "since the file's is missing" in describe_gguf(f32)
    tokens[48] = "word"
    spoil(**{"tokenizer.ggml.tokens": tuple(tokens)})
    with pytest.raises(ModelError, match=r"must have <start_function_call> or an unused token at id 48, .* got 'word'"):
        load_tokenizer(f32)
    with pytest.raises(ModelError, match=r"must have <eos> or .* as its eos token, got id 7: give"):
        read_tokens(spoil(**{"tokenizer.ggml.eos_token_id": 7}), FILE)


PIECES = ("▁t", "in", "th", "▁th", "the", "▁the", "ing", "▁▁", "▁", "t", "h", "e", "i", "n", "g", "é", "}", "{")


def to_header(texts, scores, types, **changes):
    said = {"tokens": tuple(texts), "scores": scores, "token_type": types, "model": "llama"}
    said |= {"add_space_prefix": False, **changes}
    return GgufHeader({"gemma3.context_length": 99, **{f"tokenizer.ggml.{k}": v for k, v in said.items()}}, ())


def small_vocabulary(**changes):
    """Return a header with a vocabulary of Gemma's kind: control tokens, runs of newlines and spaces, bytes, pieces."""
    own = json.loads((CHECKPOINT / "tokenizer.json").read_text())["added_tokens"]
    texts = [f"<unused{number}>" for number in range(107)]
    for token in own:
        if token["id"] < 107:
            texts[token["id"]] = token["content"]
    n_control = len(texts)
    texts += ["\n", "\n\n", "  ", "   "] + [f"<0x{number:02X}>" for number in range(256)] + [*PIECES[:7], *PIECES[8:]]
    scores = [-1000.0] * n_control + [-1000.0] * 4 + [0.0] * 256 + [-float(i) for i in range(len(PIECES) - 1)]
    types = [3] * n_control + [4] * 4 + [6] * 256 + [1] * (len(PIECES) - 1)
    for place in (46, 47, 48, 49, 51, 52):
        types[place] = 4
    return to_header(texts, **{"scores": scores, "types": types, **changes})


def test_byte_pairs_are_merged_by_their_scores_and_marks_stay_in_the_text():
    tokenizer = build_tokenizer(small_vocabulary(), FILE)
    assert tokenizer.tokenize(" the thing") == ["▁the", "▁th", "ing"]
    assert tokenizer.tokenize("   the\n\n\n") == ["▁▁▁", "the", "\n\n", "\n"]
    assert tokenizer.tokenize("né€") == ["n", "é", "<0xE2>", "<0x82>", "<0xAC>"]
    ids = tokenizer("<start_function_call>the{}<end_function_call><start_function_response>é€")["input_ids"]
    assert ids[:2] == [2, 48] and ids.count(50) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<start_function_call>the{}<end_function_call>é€"
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    assert tokenizer.padding_side == "right" and tokenizer.model_max_length == 99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gpt2"}, "must be SentencePiece's byte pairs .* got 'gpt2'"),
        ({"model": "t5"}, "got 't5'"),
        ({"add_space_prefix": True}, "without a space before the text"),
        ({"scores": None}, r"a score and a type for each of 384 tokens, got 0 and 384"),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        build_tokenizer(small_vocabulary(**changes), FILE)


def test_a_token_that_is_there_twice_is_refused():
    header = small_vocabulary()
    texts = header.metadata["tokenizer.ggml.tokens"]
    doubled = {**header.metadata, "tokenizer.ggml.tokens": (*texts[:-1], texts[-2])}
    with pytest.raises(ModelError, match="must have no token twice, but 1 are"):
        build_tokenizer(GgufHeader(doubled, ()), FILE)


def test_functiongemmas_vocabulary_comes_back_as_it_was():
    source = SHARED / "data/tokenizer/tokenizer.json"
    if not source.is_file():
        pytest.skip("FunctionGemma's tokenizer is under Gemma's terms and not here; others run")
    own = json.loads(source.read_text(encoding="utf-8"))
    written = build_vocabulary(own, 262_144)
    header = to_header(written.tokens, written.scores, written.types)
    read = json.loads(build_tokenizer(header, FILE).backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        assert read[part] == own[part]
    assert {name: read["model"][name] == value for name, value in own["model"].items()} == dict.fromkeys(
        own["model"], True
    )
    # the last two tokens of FunctionGemma have no row in the embedding
    keys = ("id", "content", "special", "normalized", "lstrip", "rstrip", "single_word")
    pairs = [[tuple(token[key] for key in keys) for token in one["added_tokens"]] for one in (read, own)]
    assert pairs[0] == [token for token in pairs[1] if token[0] < 262_144]
