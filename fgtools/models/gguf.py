"""A GGUF file as a model: its config and weights, as transformers computes Gemma 3.

Knows Gemma 3's text architecture as llama.cpp stores it, and the package gguf, which turns quantised weights back into
numbers; not tokenizers (`gguf_vocabulary`). transformers' own reader of GGUF (5.23) is not used: it takes the
pattern of the layers, the scale of attention, and the local base and scaling of positions from Gemma 3's defaults where
the file says otherwise. The exported stand-in gives other logits, since its heads are 32 wide and not 256.

llama.cpp's facts: norms are stored plus one; scores of attention are divided by the root of head_dim (by that of
hidden_size / heads in the 27B model); every sixth layer attends to the whole text, and positions of the others have
base 10,000, unless the file says otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from fgtools.files import DataFileError
from fgtools.gguf import GgufHeader, GgufTensor, read_gguf
from fgtools.models.errors import ModelError
from fgtools.models.gguf_vocabulary import STOP_IDS

if TYPE_CHECKING:
    from types import ModuleType

_ARCHITECTURE = "gemma3"
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"

_FIELDS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
}
"""What a file must say, by its name in GGUF, and the config's name of it."""

_PATTERN, _BASE, _LOCAL_BASE = "attention.sliding_window_pattern", "rope.freq_base", "rope.freq_base_swa"
_SCALING, _FACTOR, _SOFT_CAP = "rope.scaling.type", "rope.scaling.factor", "final_logit_softcapping"

_OTHER_NAMES = {"rope.global.freq_base": _BASE, "rope.local.freq_base": _LOCAL_BASE}
"""How Ollama's converter calls what llama.cpp's calls otherwise."""

_REPEATED = {"attention.value_length": "head_dim", "rope.dimension_count": "head_dim", "vocab_size": "vocab_size"}
"""What a file may say once more, and which field of the config it must equal."""

_EXACT = ("F32", "F16", "BF16")
"""Number formats whose values fp32 holds as they are."""

_NUMBERS_AT_ONCE = 4_000_000
"""Numbers that are turned back at once: the package's intermediate arrays are several times as large."""


def open_gguf(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, and check that it is a whole Gemma 3 text model with a vocabulary.

    Raises:
        ModelError: It is not, or the package gguf is not installed; the message says what to do.
    """
    gguf = _import_gguf(path)
    try:
        header = read_gguf(path)
    except DataFileError as error:
        raise ModelError(f"MODEL: {error}") from error
    found = header.metadata.get("general.architecture")
    if found != _ARCHITECTURE:
        raise ModelError(
            f"{path.name} must hold a Gemma 3 text model (architecture {_ARCHITECTURE}), as FunctionGemma's GGUF files "
            f"do, got {found!r}: give another file"
        )
    if (parts := header.metadata.get("split.count", 1)) > 1:
        raise ModelError(
            f"{path.name} must hold the whole model, but is one of {parts} parts: join them with llama.cpp's "
            "llama-gguf-split --merge and give the joined file"
        )
    end = max((tensor.offset + _count_bytes(tensor, path, gguf) for tensor in header.tensors), default=0)
    if end > path.stat().st_size:
        raise ModelError(
            f"{path.name} must have {end:,} bytes, but has {path.stat().st_size:,}: it is cut off, download it again"
        )
    _check_vocabulary(header, path)
    return header


def _import_gguf(path: Path) -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise ModelError(
            f"{path.name} is read with the package gguf, which is not installed: pip install gguf"
        ) from error
    return gguf


def _count_bytes(tensor: GgufTensor, path: Path, gguf: ModuleType) -> int:
    try:
        return math.prod(gguf.quant_shape_to_byte_shape(tensor.shape, gguf.GGMLQuantizationType(tensor.type)))
    except ValueError as error:
        raise ModelError(
            f"{path.name} must hold number formats that the package gguf knows, but {tensor.name} does not ({error}): "
            "update the package, or give a file of another quantisation"
        ) from error


def _check_vocabulary(header: GgufHeader, path: Path) -> None:
    tokens = header.metadata.get("tokenizer.ggml.tokens", ())
    rows = next((tensor.shape[0] for tensor in header.tensors if tensor.name == _EMBEDDING), 0)
    if not tokens or len(tokens) != rows:
        raise ModelError(
            f"{path.name} must hold a vocabulary with a token for every row of the embedding, got {len(tokens):,} "
            f"tokens for {rows:,} rows: give a file that holds both"
        )


def build_config(header: GgufHeader, path: Path) -> Gemma3TextConfig:
    """Return the config of the model in a GGUF file.

    Every value that the file says of the architecture is used, or must equal one that is.

    Args:
        header: The file's header, of which `open_gguf` has approved.
        path: The file, for messages.

    Raises:
        ModelError: A value is missing, contradicts another, or is not known here, so that ignoring it might change
            what the model computes.
    """
    prefix = f"{_ARCHITECTURE}."
    said = {name.removeprefix(prefix): value for name, value in header.metadata.items() if name.startswith(prefix)}
    said = {_OTHER_NAMES.get(name, name): value for name, value in said.items()}
    missing = [name for name in (*_FIELDS, _BASE) if name not in said]
    known = {*_FIELDS, *_REPEATED, _PATTERN, _BASE, _LOCAL_BASE, _SCALING, _FACTOR, _SOFT_CAP}
    if missing or (odd := sorted(set(said) - known)):
        fault = f"{prefix}{missing[0]} is missing" if missing else f"{prefix}{odd[0]} is not known here"
        raise ModelError(
            f"{path.name} must describe the model as llama.cpp's converter does, but {fault}: convert the model with "
            "llama.cpp's convert_hf_to_gguf.py, or give its transformers folder"
        )
    fields = {field: _shorten(said[name]) for name, field in _FIELDS.items()}
    layers, width = fields["num_hidden_layers"], fields["head_dim"]
    fields["vocab_size"] = next(tensor.shape[0] for tensor in header.tensors if tensor.name == _EMBEDDING)
    for name, field in _REPEATED.items():
        if said.get(name, fields[field]) != fields[field]:
            raise ModelError(
                f"{path.name} must have {prefix}{name} equal to {fields[field]}, got {said[name]}: transformers' Gemma "
                "3 has one number for both"
            )
    return Gemma3TextConfig(
        **fields,
        # llama.cpp knows the 27B model by its layers
        query_pre_attn_scalar=fields["hidden_size"] // fields["num_attention_heads"] if layers == 62 else width,
        layer_types=_list_layer_types(said.get(_PATTERN, 6), layers, path),
        rope_parameters=_build_rope(said, path),
        final_logit_softcapping=_shorten(said.get(_SOFT_CAP, 0)) or None,
        tie_word_embeddings=all(tensor.name != _HEAD for tensor in header.tensors),
        **{"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
    )


def _shorten(value: Any) -> Any:
    """Return a number of 32 bits as the shortest decimal that means it: 1e-06, not 9.999999974752427e-07."""
    return float(str(numpy.float32(value))) if isinstance(value, float) else value


def _list_layer_types(pattern: Any, layers: int, path: Path) -> list[str]:
    """Return the attention of every layer.

    Args:
        pattern: n where every n-th layer attends to the whole text, or for every layer whether it does not.
        layers: How many there are.
        path: The file, for errors.
    """
    listed = isinstance(pattern, tuple)
    if len(pattern) != layers if listed else not isinstance(pattern, int) or pattern < 1:
        got = f"{len(pattern)} of them" if listed else repr(pattern)
        raise ModelError(
            f"{path.name} must have under {_PATTERN} for each of {layers} layers whether it attends to a window, or a "
            f"whole n from 1, got {got}: convert the model again with llama.cpp's convert_hf_to_gguf.py"
        )
    sliding = pattern if listed else [(number + 1) % pattern > 0 for number in range(layers)]
    return ["sliding_attention" if is_sliding else "full_attention" for is_sliding in sliding]


def _build_rope(said: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return how positions are rotated in both kinds of layers; scaling is for those that attend to the whole text."""
    kind, factor = said.get(_SCALING, "none"), _shorten(said.get(_FACTOR, 1.0))
    if kind not in ("none", "linear"):
        raise ModelError(
            f"{path.name} must scale positions linearly or not at all, as Gemma 3 does, got {kind!r}: give another file"
        )
    whole: dict[str, Any] = {"rope_type": "default", "rope_theta": _shorten(said[_BASE])}
    if kind == "linear" and factor != 1.0:
        whole |= {"rope_type": "linear", "factor": factor}
    local = {"rope_type": "default", "rope_theta": _shorten(said.get(_LOCAL_BASE, 10000.0))}
    return {"full_attention": whole, "sliding_attention": local}


def load_gguf_model(path: Path, dtype: torch.dtype) -> Gemma3ForCausalLM:
    """Load the model of a GGUF file: every weight is turned into fp32, and then into the dtype asked for.

    Args:
        path: The file.
        dtype: Of the weights.

    Returns:
        The model on the CPU; it is saved as any other, without a word of quantisation.

    Raises:
        ModelError: As open_gguf and build_config; or the weights are not those of the config.
    """
    header = open_gguf(path)
    config = build_config(header, path)
    weights = {
        source: _load_tensor(path, tensor, dtype) for source, tensor in _match_tensors(config, header, path).items()
    }
    model = Gemma3ForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, dtype=dtype, trust_remote_code=False
    )
    model.config.name_or_path = str(path)  # which is None until now
    settings = model.generation_config
    settings.eos_token_id, settings.bos_token_id, settings.pad_token_id = list(STOP_IDS), 2, 0
    return model


def _match_tensors(config: Gemma3TextConfig, header: GgufHeader, path: Path) -> dict[str, GgufTensor]:
    """Return the tensors by their names in transformers; raises ModelError unless they are those of the config."""
    import gguf

    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in Gemma3ForCausalLM(config).named_parameters()}
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    names = {known.get_name(name, try_suffixes=(".weight",)): name for name in wanted}
    found = {tensor.name: tensor for tensor in header.tensors}
    odd = sorted(set(found) ^ set(names))
    if odd:
        fault = "unknown" if odd[0] in found else "missing"
        raise ModelError(
            f"{path.name} must hold the tensors of a Gemma 3 text model, but {len(odd)} are missing or unknown, such "
            f"as {odd[0]} ({fault}): give a file of the language model alone"
        )
    for name, tensor in found.items():
        if tensor.shape != wanted[names[name]]:
            raise ModelError(
                f"{path.name} must have {name} of shape {wanted[names[name]]}, as its own metadata say, got "
                f"{tensor.shape}: the file is damaged, download it again"
            )
    return {names[name]: tensor for name, tensor in found.items()}


def _load_tensor(path: Path, tensor: GgufTensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor; norms less the one that llama.cpp adds."""
    import gguf

    kind = gguf.GGMLQuantizationType(tensor.type)
    stored = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
    raw = numpy.memmap(path, numpy.uint8, "r", tensor.offset, (math.prod(stored[:-1]), stored[-1]))
    values = torch.empty(raw.shape[0], tensor.shape[-1], dtype=dtype)
    step = max(1, _NUMBERS_AT_ONCE // tensor.shape[-1])
    for start in range(0, raw.shape[0], step):
        try:
            numbers = gguf.quants.dequantize(numpy.array(raw[start : start + step]), kind)
        except NotImplementedError as error:
            raise ModelError(
                f"{path.name} holds weights in {kind.name}, which the package gguf cannot turn back: give a file of "
                "another quantisation, such as BF16 or Q8_0"
            ) from error
        if tensor.name.endswith("norm.weight"):
            numbers = numbers - 1
        values[start : start + step] = torch.from_numpy(numbers)
    return values.reshape(tensor.shape)


def describe_weights(header: GgufHeader, path: Path) -> str:
    """Return in which number formats a file holds its weights, and what that costs, for people."""
    import gguf

    counts: Counter[str] = Counter()
    for tensor in header.tensors:
        counts[gguf.GGMLQuantizationType(tensor.type).name] += math.prod(tensor.shape)
    shares = ", ".join(f"{count / counts.total():.1%} {name}" for name, count in counts.most_common())
    if set(counts) <= set(_EXACT):
        return f"{path.name}: weights {shares}; none is quantised, so they are taken as they are"
    return (
        f"{path.name}: weights {shares}; turned back into fp32, without the fine details that quantisation took away "
        "(BF16, F16 and F32 files are exact)"
    )
