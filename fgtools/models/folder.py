"""A model folder as it lies on a disk, looked at before transformers opens it.

Knows which files a folder of a Gemma 3 text model holds and what must stand in them: JSON, sizes, shapes. Loads no
weights. transformers would fail on an odd folder somewhere inside, ask on standard input whether to run the folder's
code, load another model than the folder's, or load numbers that mean nothing; here each such folder is named with its
file and what to do. Nothing of a folder is run.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import safe_open

from fgtools.files import DataFileError, FgtoolsError, FileError, read_text
from fgtools.models.errors import ModelError

MODEL_TYPE = "gemma3_text"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model")
_ADAPTERS = "adapter_config.json"

_LARGEST = {
    **{"vocab_size": 2**22, "hidden_size": 2**16, "intermediate_size": 2**18, "num_hidden_layers": 512},
    **{"num_attention_heads": 2**10, "num_key_value_heads": 2**10, "head_dim": 2**12},
    **{"max_position_embeddings": 2**31, "sliding_window": 2**31},
}
"""The whole numbers of a config, and what none of them exceeds: far more than any Gemma 3 has."""

_SHAPING = (
    *("vocab_size", "hidden_size", "intermediate_size"),
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
)
"""Those of them that the shapes of weights follow from."""

_POSITIVE = ("rms_norm_eps", "query_pre_attn_scalar", "rope_theta", "rope_local_base_freq")
"""Numbers of a config that must be above 0: with others the model computes no numbers."""

_ATTENTION = ("sdpa", "eager", None)
"""Attention that a config may ask for; any other name may be that of a program to download."""

_ELSEWHERE = ("transformers_weights", "distributed_config", "fusion_config")
"""Entries of a config by which transformers would load other files or compute otherwise."""

_NUMBERS = ("F64", "F32", "F16", "BF16")
"""Number formats of plain weights, as safetensors calls them."""

_NUMBER = re.compile(r"\.\d+\.")
"""The number of a layer in a tensor's name."""

_POINTER = b"version https://git-lfs"
"""How a file begins that stands for another one, which Git LFS has not fetched."""

_SAVED_WHOLE = "was it saved whole? Download or save it again"


class _OddJsonError(ValueError):
    """JSON that Python's parser takes and that says nothing sure; the message says why."""


@contextmanager
def blame(file: str, what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged or odd file into a ModelError that names the file and the remedy.

    Errors of this package and of memory pass as they are.

    Args:
        file: The file or folder.
        what: What must hold of it, such as "must load".
        remedy: What to do.
    """
    try:
        yield
    except (FgtoolsError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        # the package tokenizers is written in Rust, whose panics are no Exception
        is_panic = type(error).__name__ == "PanicException"
        if not (isinstance(error, Exception) or is_panic) or "allocate memory" in str(error):
            raise
        reason = shorten(str(error), 240, placeholder=" ...")  # in one line
        raise ModelError(f"{file} {what}, but {type(error).__name__}: {reason}; {remedy}") from error


def read_model_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model folder, more strictly than transformers does.

    Raises:
        ModelError: It cannot be read, is not UTF-8, is no JSON object, holds a number that is none, or says two
            things under one name.
    """
    file = f"{path.parent.name}/{path.name}"

    def refuse(word: str) -> None:
        raise _OddJsonError(f"{word} is no number of JSON")

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values and values[name] != value:
                raise _OddJsonError(f"{name!r} stands there twice with different values")
            values[name] = value
        return values

    try:
        text = read_text(path)
        if path.read_bytes().startswith(codecs.BOM_UTF8):
            raise _OddJsonError("it begins with a byte-order mark, with which transformers does not read it")
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=build)
    except (DataFileError, FileError) as error:
        raise ModelError(f"{error}; it is a file of the model folder {path.parent.name!r}") from error
    except (ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else error
        raise ModelError(f"{file} must hold one JSON object, but {reason}: download the model again") from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{file} must hold one JSON object, got {'null' if value is None else type(value).__name__}: download the "
            "model again"
        )
    return value


def require_file(folder: Path, file: str) -> None:
    """Check that a folder holds a file; raises ModelError, which says what the folder is where that can be told."""
    if (folder / file).is_file():
        return
    if files := sorted(path.name for path in folder.glob("*.gguf")):
        raise ModelError(
            f"MODEL must name one of the {len(files)} GGUF files in {folder.name!r}, and not their folder: give "
            f"{str(folder / files[0])!r}" + (f", or {', '.join(files[1:4])}" if files[1:] else "")
        )
    if (folder / _ADAPTERS).is_file():
        _refuse_adapters(folder)
    inner = folder / "model"
    hint = f"the run's model is {str(inner)!r}" if (inner / file).is_file() else "check MODEL"
    held = "" if any(folder.iterdir()) else ": it is empty"
    raise ModelError(f"the model folder {folder.name!r} must hold {file}, but does not{held}: {hint}")


def _refuse_adapters(folder: Path) -> None:
    base = read_model_json(folder / _ADAPTERS).get("base_model_name_or_path") or "a base that it does not name"
    raise ModelError(
        f"the model folder {folder.name!r} must hold a whole model, but {_ADAPTERS} says that it holds adapters for "
        f"{base}: merge them with peft's merge_and_unload() and save that, as training does here"
    )


def check_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model folder, checked.

    Raises:
        ModelError: It is missing, damaged or odd, asks for code of the folder's own, or describes quantised weights,
            adapters or another architecture than Gemma 3's text model.
    """
    require_file(folder, "config.json")
    config, file = read_model_json(folder / "config.json"), f"{folder.name}/config.json"
    if (folder / _ADAPTERS).is_file():
        _refuse_adapters(folder)
    _refuse_code(config, file)
    if config.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{file} must describe a Gemma 3 text model (model_type {MODEL_TYPE}), as FunctionGemma is one, got "
            f"{config.get('model_type')!r}: give the folder of FunctionGemma or of another Gemma 3 text model"
        )
    for name in ("quantization_config", "compression_config"):
        if config.get(name) is not None:
            said = config[name]
            kind = (said.get("quant_method") if isinstance(said, Mapping) else None) or "an unknown method"
            raise ModelError(
                f"{file} must describe plain weights, but its {name} says that they are quantised ({kind}): give the "
                "model that was not quantised, such as google/functiongemma-270m-it, or a GGUF file"
            )
    for name in _ELSEWHERE:
        if config.get(name) is not None:
            raise ModelError(f"{file} must not hold {name}, which changes what is loaded: remove that line")
    attention = config.get("_attn_implementation", config.get("attn_implementation"))
    if attention not in _ATTENTION:
        raise ModelError(f"{file} must ask for attention sdpa or eager, or for none, got {attention!r}: remove it")
    _check_sizes(config, file)
    return config


def _refuse_code(values: Mapping[str, Any], file: str) -> None:
    if values.get("auto_map"):
        raise ModelError(
            f"{file} must not ask for code of the folder's own (auto_map), which is never run here: give a model that "
            "transformers knows by itself, or remove auto_map if it is a plain Gemma 3 text model"
        )


def _check_sizes(config: Mapping[str, Any], file: str) -> None:
    for name, largest in _LARGEST.items():
        value = config.get(name)
        if name in config and not (value is None and name == "sliding_window"):
            _require(type(value) is int and 0 < value <= largest, file, f"{name} from 1 to {largest:,}", value)
    for name in _POSITIVE:
        value = config.get(name)
        if value is not None:
            is_number = type(value) in (int, float) and math.isfinite(value)
            _require(is_number and value > 0, file, f"{name} above 0", value)
    heads, shared = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if heads and shared:
        _require(heads % shared == 0, file, f"num_attention_heads ({heads}) divisible by num_key_value_heads", shared)
    kinds, layers = config.get("layer_types"), config.get("num_hidden_layers")
    if kinds is not None and layers is not None:
        fits = isinstance(kinds, list) and len(kinds) == layers
        _require(fits, file, f"layer_types of {layers} layers", len(kinds) if isinstance(kinds, list) else kinds)


def _require(holds: bool, file: str, wanted: str, got: Any) -> None:
    if not holds:
        shown = shorten(repr(got), 60, placeholder=" ...")
        raise ModelError(f"{file} must have {wanted}, got {shown}: download the model again")


def check_tokenizer_files(folder: Path) -> None:
    """Check the small files that a tokenizer is loaded from; raises ModelError where one is missing, damaged or odd."""
    require_file(folder, "tokenizer_config.json")
    _refuse_code(read_model_json(folder / "tokenizer_config.json"), f"{folder.name}/tokenizer_config.json")
    if not any((folder / file).is_file() for file in _VOCABULARIES):
        raise ModelError(f"the model folder {folder.name!r} must hold {_VOCABULARIES[0]}, but does not: {_SAVED_WHOLE}")
    for file in _VOCABULARIES:
        if (folder / file).is_file():
            _refuse_pointer(folder / file)


def _refuse_pointer(path: Path) -> None:
    with blame(f"{path.parent.name}/{path.name}", "must be readable", "check the permissions"), path.open("rb") as file:
        is_pointer = file.read(len(_POINTER)) == _POINTER
    if is_pointer:
        raise ModelError(
            f"{path.parent.name}/{path.name} must be the file itself, but is Git LFS's pointer to it: run git lfs pull "
            "in the folder it was cloned to, or download it with huggingface_hub"
        )


def check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Check the weights' files of a folder by their headers, no weight is read.

    Args:
        folder: The model folder.
        config: Its config, as `check_config` returns it.

    Raises:
        ModelError: There are none, or a file is missing, cut off, damaged, quantised, or holds other shapes than the
            config says.
    """
    file = next((name for name in WEIGHTS if (folder / name).is_file()), "")
    if not file:
        raise ModelError(
            f"the model folder {folder.name!r} must hold weights ({WEIGHTS[0]}), but holds none: was it saved whole?"
        )
    parts = _list_parts(folder, file) if file.endswith(".index.json") else {file: ()}
    for part, names in parts.items():
        _refuse_pointer(folder / part)
        if part.endswith(".safetensors"):
            _check_tensors(folder / part, names, _list_shapes(config))


def _list_parts(folder: Path, index: str) -> dict[str, Sequence[str]]:
    """Return the files of weights that an index names, and the tensors that each must hold."""
    named = read_model_json(folder / index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise ModelError(
            f"{folder.name}/{index} must say under weight_map which file holds each tensor: {_SAVED_WHOLE}"
        )
    parts: dict[str, list[str]] = {}
    for tensor, file in named.items():
        parts.setdefault(file, []).append(tensor)
    for file in parts:
        if Path(file).name != file:
            raise ModelError(f"{folder.name}/{index} must name files of its own folder, got {file!r}: save it again")
        if not (folder / file).is_file():
            raise ModelError(f"the model folder {folder.name!r} must hold {file}, which {index} names: {_SAVED_WHOLE}")
    return parts


def _check_tensors(path: Path, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
    file = f"{path.parent.name}/{path.name}"
    with blame(file, "must be a whole safetensors file", _SAVED_WHOLE), safe_open(path, framework="pt") as opened:
        held = set(opened.keys())
        if missing := sorted(set(names) - held):
            raise ModelError(f"{file} must hold {missing[0]}, as the index says, but does not: {_SAVED_WHOLE}")
        for name in sorted(held):
            tensor = opened.get_slice(name)
            if tensor.get_dtype() not in _NUMBERS:
                raise ModelError(
                    f"{file} must hold plain weights ({', '.join(_NUMBERS)}), but {name} is {tensor.get_dtype()}, a "
                    "format of quantised ones: give the model that was not quantised"
                )
            wanted, shape = shapes.get(_NUMBER.sub(".0.", name, count=1)), tuple(tensor.get_shape())
            if wanted and shape != wanted:
                raise ModelError(
                    f"{file} must have {name} of shape {wanted}, as config.json says, got {shape}: one of the two "
                    "files is of another model"
                )


def _list_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a Gemma 3 text model's tensors, those of layer 0 for all layers; {} where sizes are missing.

    Its layers differ in their attention alone, and that has the same shapes in all of them.
    """
    sizes = [config.get(name) for name in _SHAPING]
    if None in sizes:
        return {}
    vocabulary, hidden, inner, heads, shared, width = sizes
    layer = {
        **{"self_attn.q_proj": (heads * width, hidden), "self_attn.o_proj": (hidden, heads * width)},
        **dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), (shared * width, hidden)),
        **dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (width,)),
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (inner, hidden)),
        **{"mlp.down_proj": (hidden, inner)},
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (hidden,)),
        **dict.fromkeys(("pre_feedforward_layernorm", "post_feedforward_layernorm"), (hidden,)),
    }
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    whole = {"model.embed_tokens": (vocabulary, hidden), "lm_head": (vocabulary, hidden), "model.norm": (hidden,)}
    return {**shapes, **{f"{name}.weight": shape for name, shape in whole.items()}}
