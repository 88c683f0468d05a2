"""Weights and tokenizer from kagglehub, the hub, a folder or the offline stand-in.

Knows files, hubs and transformers' loaders; not prompts or rows. Device and dtype are chosen in `device`, and printed
here with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from fgtools.calls.tokens import BOS, END_CALL, EOS, ESCAPE, PAD, START_CALL, STOP_TOKENS
from fgtools.files import FgtoolsError
from fgtools.models.attention import describe_attention
from fgtools.models.device import choose_device_and_dtype, detect_capability
from fgtools.offline import CHECKPOINT
from fgtools.profiles import FUNCTIONGEMMA

STANDIN = "standin"
_KAGGLE_HANDLE = re.compile(r"[\w-]+(/[\w.-]+){3,4}\Z")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+\Z")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_NOT_THE_MODELS = frozenset({"_name_or_path", "transformers_version", "use_cache"})
"""Entries of a config that no logit depends on."""


class ModelError(FgtoolsError, ValueError):
    """A model or tokenizer cannot be loaded or does not fit the format; the message says what to do."""


def find_model(name: str) -> Path:
    """Return the local folder of a model; download it if it is not local.

    Args:
        name: "standin", a folder, a kagglehub handle (owner/model/framework/variation, with or without a version) or
            a hub id (owner/name). A folder of that name comes first.

    Returns:
        The folder; it holds config.json.

    Raises:
        ModelError: Nothing has that name, the download fails, or the folder holds no model.
    """
    folder = CHECKPOINT if name == STANDIN else Path(name)
    if folder.is_file():
        raise ModelError(f"MODEL must be a folder, got the file {name!r}: give the folder it lies in")
    if not name or not folder.is_dir():
        if name.startswith((".", "/", "~")):
            raise ModelError(f"MODEL must be an existing folder, but {name!r} does not exist: check the path")
        if _KAGGLE_HANDLE.match(name):
            folder = _fetch_from_kaggle(name)
        elif _HUB_ID.match(name):
            folder = _fetch_from_hub(name)
        else:
            raise ModelError(
                f"MODEL must be {STANDIN!r}, an existing folder, a hub id such as 'google/functiongemma-270m-it' or a "
                f"kagglehub handle such as {FUNCTIONGEMMA!r}, got {name!r}"
            )
    _require(folder, "config.json")
    return folder


def _require(folder: Path, file: str) -> None:
    if not (folder / file).is_file():
        raise ModelError(f"the model folder {folder.name!r} must hold {file}, but does not: check MODEL")


def _fetch_from_kaggle(handle: str) -> Path:
    import kagglehub
    from kagglehub import exceptions

    try:
        return Path(kagglehub.model_download(handle))
    except (
        OSError,
        ValueError,
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.KaggleEnvironmentError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
        exceptions.DataCorruptionError,
    ) as error:
        raise ModelError(
            f"kagglehub could not fetch {handle!r} ({type(error).__name__}): check the handle, accept the model's "
            "licence on its Kaggle page, switch the notebook's internet on, or give MODEL a local folder"
        ) from error


def _fetch_from_hub(repo_id: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        return Path(huggingface_hub.snapshot_download(repo_id))
    except (OSError, HTTPError, HFValidationError) as error:
        raise ModelError(
            f"the hub could not give {repo_id!r} ({type(error).__name__}): check its name, log in (notebook 1) if it "
            "is gated and accept its licence, switch the internet on, or give MODEL a local folder"
        ) from error


def load_tokenizer(name_or_path: str | Path, chat_template: str | Path = "") -> PreTrainedTokenizerBase:
    """Load a tokenizer for FunctionGemma's format.

    Args:
        name_or_path: As for find_model; with a `chat_template`, a folder with nothing but tokenizer.json is enough.
        chat_template: A Jinja file that replaces the tokenizer's own template; "standin" for the stand-in's, which
            renders as FunctionGemma's does; "" for its own.

    Returns:
        The tokenizer, padding on the right.

    Raises:
        ModelError: It cannot be loaded, has no chat template or pad token, or splits a control token.
    """
    template = ""
    if chat_template:
        path = CHECKPOINT / "chat_template.jinja" if str(chat_template) == STANDIN else Path(chat_template)
        if not path.is_file():
            raise ModelError(
                f"the chat template {str(chat_template)!r} must be a Jinja file or {STANDIN!r}: check the path"
            )
        template = path.read_text(encoding="utf-8")
    bare = Path(name_or_path) / "tokenizer.json"
    if template and bare.is_file() and not bare.with_name("tokenizer_config.json").exists():
        folder = bare.parent
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(bare), bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token="<unk>"
        )
        tokenizer.name_or_path = str(folder)
    else:
        folder = find_model(str(name_or_path))
        _require(folder, "tokenizer_config.json")
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            message = f"the tokenizer of {folder.name!r} must load, but {type(error).__name__}: {error}"
            raise ModelError(message) from error
    tokenizer.chat_template = template or tokenizer.chat_template
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {folder.name!r} must carry a chat template: copy chat_template.jinja there")
    require_control_tokens(tokenizer, folder.name)
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer of {folder.name!r} must have a pad token, but has none")
    return tokenizer


def require_control_tokens(tokenizer: PreTrainedTokenizerBase, name: str = "") -> None:
    """Check that the control tokens of a call and the stop tokens of a reply are one token each.

    Args:
        tokenizer: The tokenizer.
        name: Its name in messages.

    Raises:
        ModelError: One of them is split.
    """
    for token in (START_CALL, END_CALL, ESCAPE, *STOP_TOKENS):
        if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1:
            of = f" of {name!r}" if name else ""
            raise ModelError(
                f"the tokenizer{of} must know {token} as one token, but splits it: use a FunctionGemma tokenizer"
            )


def load_model(name_or_path: str | Path, *, device: str | None = None, quiet: bool = False) -> PreTrainedModel:
    """Load a model onto its device, and print device, dtype and the reason.

    Args:
        name_or_path: As for find_model.
        device: A device to use instead, such as "cpu".
        quiet: Whether to print nothing.

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelError: It cannot be loaded, has no weights, or they do not fit its config.
    """
    folder = find_model(str(name_or_path))
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise ModelError(
            f"the model folder {folder.name!r} must hold weights ({_WEIGHTS[0]}), but holds none: was it saved whole?"
        )
    decision = choose_device_and_dtype(None if device == "cpu" else detect_capability())
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=decision.dtype, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model {folder.name!r} must load, but {type(error).__name__}: {error}") from error
    if loading["missing_keys"]:
        raise ModelError(
            f"the weights of {folder.name!r} must hold every layer of its config, but {len(loading['missing_keys'])} "
            f"tensors are missing, such as {min(loading['missing_keys'])}: was it saved whole?"
        )
    if not quiet:
        print(f"{device or decision.device}, {str(decision.dtype).removeprefix('torch.')}: {decision.reason}")
        print(describe_attention(model.config._attn_implementation, None if device == "cpu" else detect_capability()))
    return model.to(device or decision.device).eval()


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end a reply: FunctionGemma's 1, 50 and 106, as far as the tokenizer has them."""
    return sorted(tokenizer.convert_tokens_to_ids(token) for token in STOP_TOKENS if token in tokenizer.get_vocab())


def fingerprint_model(model: PreTrainedModel) -> str:
    """Return a hash that tells models apart.

    It covers the config, and of every weight the name, dtype, shape and about 256 evenly spaced values.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_THE_MODELS}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in model.named_parameters():
        step = max(1, weight.numel() // 256)
        numbers = weight.detach().flatten()[::step].float().tolist()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {numbers}".encode())
    return digest.hexdigest()


def hash_weights(model: PreTrainedModel, dtype: torch.dtype) -> str:
    """Return a hash of every value of every weight, in the format in which they are saved.

    Args:
        model: The model.
        dtype: That format.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        values = weight.detach().to("cpu", dtype).contiguous().flatten()
        digest.update(name.encode())
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()
