"""A tuned model as one GGUF file, which llama.cpp and programs built on it load: weights, tokenizer, chat template.

Knows Gemma 3's text architecture as transformers saves it and as llama.cpp computes it; not whether the file answers as
the model did (`run.export` measures that). Three facts differ, each read from llama.cpp and measured: norms are stored
plus one; scores of attention are always divided by the root of head_dim, so a model with another scale has the quotient
in the norm of its queries; and layers with full attention stand at every n-th place.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtools.calls.tokens import BOS, END_TURN, EOS, PAD, START_RESPONSE
from fgtools.files import InputError, make_folder, name_file, read_json, read_text
from fgtools.profiles import GGUF_TYPES
from fgtools.serve.vocabulary import ExportError, Vocabulary, add_tokens, build_vocabulary, read_vocabulary

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy import ndarray
    from transformers import PretrainedConfig

_SMALL = ("q5_1", "q5_0", "q4_1", "q4_0")
"""Number formats of four and five bits: in their files the embedding, which is the head as well, stays in q8_0."""

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that was written.

    Attributes:
        path: Where it lies.
        type: Number format of its weights, one of profiles.GGUF_TYPES.
        tensors: Number format -> tensors that have it; those of one dimension are always f32.
        size: Its bytes.
        seconds: How long it took to write.
        tokens_left_out: Texts of tokens that the tokenizer has and the embedding has no row for.
    """

    path: Path
    type: str
    tensors: Mapping[str, int]
    size: int
    seconds: float
    tokens_left_out: tuple[str, ...]


def write_gguf(folder: str | Path, path: str | Path, type: str = "f16", base: str | Path = "") -> GgufFile:
    """Write the model of a folder as a GGUF file: whole, or not at all.

    Id 50, <start_function_response>, is written as the end of a message, so that llama.cpp stops after the calls.

    Args:
        folder: A folder that transformers loads, with model.safetensors and tokenizer.json.
        path: The file to write.
        type: Number format of the weights, one of profiles.GGUF_TYPES.
        base: The base model's GGUF file, whose vocabulary is used in place of one made from tokenizer.json.

    Returns:
        The GgufFile.

    Raises:
        InputError: The type is unknown, or the package gguf is not installed.
        ExportError: The folder holds no weights, those of another architecture, or a tokenizer of another kind.
        FileError: The file cannot be written, such as on a full disk.
    """
    gguf = _import_gguf()
    folder, path, begun = Path(folder), Path(path), time.perf_counter()
    if type not in GGUF_TYPES:
        raise InputError(f"the type of a GGUF file must be one of {', '.join(GGUF_TYPES)}, got {type!r}")
    config, files = _load_config(folder), _find_tensors(folder)
    vocabulary = _load_vocabulary(folder, config.vocab_size, base)
    names = _name_tensors(config, files)
    kinds = {name: _choose_type(_get_shape(files[source], source), name, type) for source, name in names.items()}
    with _write_whole(path) as scratch:
        writer = gguf.GGUFWriter(scratch, "gemma3")
        try:
            _add_shape(writer, config, type)
            _add_vocabulary(writer, vocabulary, read_text(folder / "chat_template.jinja"))
            for source, name in names.items():
                shape, kind = _get_shape(files[source], source), kinds[name]
                stored = gguf.quant_shape_to_byte_shape(shape, kind) if shape[1:] else (4 * shape[0],)
                writer.add_tensor_info(name, shape, None, math.prod(stored), raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for source, name in names.items():
                writer.write_tensor_data(_convert(_load_tensor(files[source], source), name, kinds[name], config))
        finally:
            writer.close()
    counts = dict(Counter(kind.name.lower() for kind in kinds.values()).most_common())
    return GgufFile(path, type, counts, path.stat().st_size, time.perf_counter() - begun, vocabulary.left_out)


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise InputError(
            "GGUF files are written by the package gguf, which is not installed: pip install 'fgtools[gguf]'"
        ) from error
    return gguf


def _load_config(folder: Path) -> PretrainedConfig:
    """Return the config of a folder; raises ExportError unless it is a Gemma 3 text model with whole weights."""
    from fgtools.models.open_folder import load_config

    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ExportError(
            f"{folder.name!r} must hold a whole model, but holds LoRA adapters alone: merge them into their base with "
            "peft's merge_and_unload() and save that, as training does here"
        )
    saved = read_json(folder / "config.json")
    if saved.get("model_type") != "gemma3_text":
        raise ExportError(
            f"the model in {folder.name!r} must be a Gemma 3 text model (model_type gemma3_text), got "
            f"{saved.get('model_type')!r}: no other architecture is written"
        )
    config = load_config(folder)
    if config.hidden_activation != "gelu_pytorch_tanh" or config.attention_bias or config.final_logit_softcapping:
        raise ExportError(
            f"the model in {folder.name!r} must be as llama.cpp computes Gemma 3: GELU by tanh, no bias, no soft cap"
        )
    return config


def _find_tensors(folder: Path) -> dict[str, Path]:
    """Return the safetensors file of every tensor."""
    from safetensors import safe_open

    index = folder / f"{_WEIGHTS}.index.json"
    if index.is_file():
        files = {name: folder / file for name, file in read_json(index)["weight_map"].items()}
        missing = sorted({file.name for file in files.values() if not file.is_file()})
        if missing:
            raise ExportError(f"{folder.name!r} must hold all its weights, but {missing[0]} is missing: save it again")
        return files
    path = folder / _WEIGHTS
    if not path.is_file():
        raise ExportError(
            f"{folder.name!r} must hold weights as {_WEIGHTS}, but holds none: load the model with transformers and "
            "save it there"
        )
    with safe_open(path, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), path)


def _get_shape(path: Path, name: str) -> tuple[int, ...]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        return tuple(opened.get_slice(name).get_shape())


def _load_tensor(path: Path, name: str) -> ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        return opened.get_tensor(name).float().numpy()


def _name_tensors(config: PretrainedConfig, files: Mapping[str, Path]) -> dict[str, str]:
    """Return the tensors to write: the name in transformers -> the name in GGUF; every one that llama.cpp needs."""
    import gguf

    arch, layers = gguf.MODEL_ARCH.GEMMA3, range(config.num_hidden_layers)
    known = gguf.get_tensor_name_map(arch, len(layers))
    names = {source: known.get_name(source, try_suffixes=(".weight",)) for source in files}
    if config.tie_word_embeddings:
        names = {source: name for source, name in names.items() if name != "output.weight"}
    wanted = {
        f"{gguf.TENSOR_NAMES[tensor].format(bid=layer)}.weight"
        for tensor in gguf.MODEL_TENSORS[arch]
        for layer in layers
    }
    if config.tie_word_embeddings:
        wanted.discard("output.weight")
    odd = sorted(source for source, name in names.items() if name not in wanted)
    missing = sorted(wanted - {*names.values()})
    if odd or missing:
        raise ExportError(
            f"the weights must be those of a Gemma 3 text model, but {len(missing)} are missing and {len(odd)} "
            f"unknown, such as {(missing + odd)[0]}: was the model saved whole?"
        )
    return names


def _choose_type(shape: tuple[int, ...], name: str, type: str) -> GGMLQuantizationType:
    """Return the number format of a tensor."""
    import gguf

    formats = gguf.GGMLQuantizationType
    if len(shape) == 1:
        return formats.F32
    if type in _SMALL and name == "token_embd.weight":
        type = "q8_0"
    kind = formats[type.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else formats.F16


def _convert(weight: ndarray, name: str, kind: GGMLQuantizationType, config: PretrainedConfig) -> ndarray:
    """Return a weight as llama.cpp takes it, in its number format."""
    import gguf
    import numpy

    if name.endswith("norm.weight"):
        weight = weight + 1
    if name.endswith("attn_q_norm.weight"):
        weight = weight * math.sqrt(config.head_dim / config.query_pre_attn_scalar)
    if kind == gguf.GGMLQuantizationType.F16 and numpy.abs(weight).max() > numpy.finfo(numpy.float16).max:
        raise ExportError(f"the weights of {name} must fit f16, but are larger: write bf16, or q8_0")
    return gguf.quants.quantize(numpy.ascontiguousarray(weight, dtype=numpy.float32), kind)


def _add_shape(writer: GGUFWriter, config: PretrainedConfig, type: str) -> None:
    """Add what llama.cpp must know of the architecture."""
    import gguf

    rope = config.rope_parameters
    if any(one.get("rope_type", "default") != "default" for one in rope.values()):
        raise ExportError("positions must be rotated without scaling, as in Gemma 3 270M: nothing else is written")
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if type == 'f32' else 'MOSTLY'}_{type.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(_find_period(config.layer_types))


def _find_period(layer_types: list[str]) -> int:
    """Return n where every n-th layer, and no other, attends to the whole text."""
    full = [number for number, name in enumerate(layer_types, start=1) if name == "full_attention"]
    period = full[0] if full else len(layer_types) + 1
    if full != [number for number in range(1, len(layer_types) + 1) if number % period == 0]:
        raise ExportError(
            f"every n-th layer must have full attention, as llama.cpp computes Gemma 3, got layers {full} of "
            f"{len(layer_types)}: this model cannot be written"
        )
    return period


def _load_vocabulary(folder: Path, n_rows: int, base: str | Path) -> Vocabulary:
    tokenizer = read_json(folder / "tokenizer.json")
    if not base:
        return build_vocabulary(tokenizer, n_rows)
    vocabulary = read_vocabulary(Path(base))
    if len(vocabulary.tokens) != n_rows:
        raise ExportError(
            f"the base must have as many tokens as the model's embedding has rows, got {len(vocabulary.tokens):,} and "
            f"{n_rows:,}: give the GGUF file of the model that was tuned"
        )
    return add_tokens(vocabulary, tokenizer)


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, chat_template: str) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    ids = {text: number for number, text in enumerate(vocabulary.tokens)}
    writer.add_bos_token_id(ids[BOS])
    writer.add_eos_token_id(ids[EOS])
    writer.add_pad_token_id(ids[PAD])
    writer.add_unk_token_id(ids["<unk>"])
    writer.add_eot_token_id(ids[END_TURN])
    writer.add_eom_token_id(ids[START_RESPONSE])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_chat_template(chat_template)


@contextmanager
def _write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside the file, which becomes the file when all went well and is deleted otherwise."""
    make_folder(path.parent)
    with name_file(path, "written"):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        scratch = Path(name)
        try:
            yield scratch
            scratch.chmod(0o644)
            os.replace(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
