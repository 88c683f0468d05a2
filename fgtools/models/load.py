"""Weights and tokenizer from kagglehub, the hub, a folder, a GGUF file or the offline stand-in.

Knows files, hubs and transformers' loaders; not prompts or rows. Device and dtype are chosen in `device`, and printed
here with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fgtools.calls.tokens import BOS, END_CALL, EOS, ESCAPE, PAD, START_CALL, STOP_TOKENS
from fgtools.files import read_text
from fgtools.gguf import GgufHeader
from fgtools.models.attached import KAGGLE_HANDLE, find_attached_model
from fgtools.models.attention import describe_attention
from fgtools.models.device import choose_device_and_dtype, detect_capability
from fgtools.models.errors import ModelError
from fgtools.models.folder import blame, require_file
from fgtools.models.open_folder import load_folder_model, load_folder_tokenizer, require_finite
from fgtools.models.template import check_template
from fgtools.offline import CHECKPOINT
from fgtools.profiles import FUNCTIONGEMMA
from fgtools.rows.hub_errors import explain_hub_error, is_offline

STANDIN = "standin"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+\Z")
_HUB_GGUF = re.compile(r"([\w-][\w.-]*/[\w.-]+):([^:]+\.gguf)\Z")
_NOT_THE_MODELS = frozenset({"_name_or_path", "transformers_version", "use_cache"})
"""Entries of a config that no logit depends on."""


def find_model(name: str) -> Path:
    """Return where a model lies on this machine; download it if it is not local.

    Args:
        name: "standin", a folder, a GGUF file, a kagglehub handle (owner/model/framework/variation, with or without a
            version), a hub id (owner/name), or a GGUF file of the hub (owner/name:file.gguf). A folder or file of that
            name comes first, and of a handle a model that is attached to this Kaggle notebook.

    Returns:
        A folder that holds config.json, or a GGUF file.

    Raises:
        ModelError: Nothing has that name, the download fails, or the folder holds no model.
    """
    path = CHECKPOINT if name == STANDIN else Path(name)
    with blame(repr(name), "must be a model folder that can be read", "check the path and the permissions"):
        is_file, is_folder, is_link = path.is_file(), bool(name) and path.is_dir(), path.is_symlink()
    if is_file and is_gguf(path):
        return path
    if is_file:
        raise ModelError(f"MODEL must be a folder or a .gguf file, got the file {name!r}: give the folder it lies in")
    if not is_folder and is_link:
        raise ModelError(f"MODEL must be an existing folder, but the link {name!r} leads nowhere: check the path")
    if not is_folder:
        path = _fetch(name)
    if not is_gguf(path):
        require_file(path, "config.json")
    return path


def is_gguf(path: Path) -> bool:
    """Return whether a path is that of a GGUF file, by its name."""
    return path.suffix.lower() == ".gguf" and not path.is_dir()


def _fetch(name: str) -> Path:
    """Download what is no local path; raises ModelError where the name is none of kagglehub's or the hub's."""
    if found := _HUB_GGUF.match(name):
        return _fetch_from_hub(*found.groups())
    if name.startswith((".", "/", "~")) or name.lower().endswith(".gguf"):
        kind = "GGUF file" if name.lower().endswith(".gguf") else "folder"
        raise ModelError(f"MODEL must be an existing {kind}, but {name!r} does not exist: check the path")
    if KAGGLE_HANDLE.match(name):
        return find_attached_model(name) or _fetch_from_kaggle(name)
    if _HUB_ID.match(name):
        return _fetch_from_hub(name)
    raise ModelError(
        f"MODEL must be {STANDIN!r}, an existing folder or .gguf file, a hub id such as "
        f"'google/functiongemma-270m-it', a GGUF file of the hub such as 'owner/name:file.gguf', or a kagglehub handle "
        f"such as {FUNCTIONGEMMA!r}, got {name!r}"
    )


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
        raise ModelError(f"kagglehub could not fetch {handle!r}: {_explain_kaggle(error)}") from error


def _explain_kaggle(error: Exception) -> str:
    """Return what to do about an error of kagglehub; a login is named only where one can help."""
    names = {base.__name__ for base in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if names & {"CredentialError", "UnauthenticatedError"} or status in (401, 403):
        return (
            f"it is given to those who are logged in and accepted its licence ({type(error).__name__}): accept it on "
            "the model's Kaggle page and set KAGGLE_API_TOKEN, or give MODEL a local folder"
        )
    if "NotFoundError" in names or status == 404:
        return "Kaggle has no model of that handle, owner/model/framework/variation: check the spelling"
    if names & {"ConnectionError", "Timeout", "TimeoutError", "ConnectError", "gaierror"}:
        return (
            "Kaggle cannot be reached: check the internet connection; in a notebook of Kaggle switch Internet on, or "
            "attach the model (Add Input, Models); or give MODEL a local folder"
        )
    return (
        f"{type(error).__name__}: check the handle, attach the model to the notebook (Add Input, Models), or give "
        "MODEL a local folder"
    )


def _fetch_from_hub(repo_id: str, file: str = "") -> Path:
    """Download a repository without its GGUF files, which may be many, or one file of it."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        if file:
            return Path(huggingface_hub.hf_hub_download(repo_id, file))
        folder = Path(huggingface_hub.snapshot_download(repo_id, ignore_patterns=["*.gguf"]))
    except (OSError, HTTPError, HFValidationError) as error:
        if "EntryNotFoundError" in {base.__name__ for base in type(error).__mro__} and file and not is_offline():
            raise ModelError(f"{repo_id!r} of the hub must hold {file}, but does not: check the file's name") from error
        raise ModelError(explain_hub_error(error, repo_id)) from error
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{repo_id!r} of the hub must hold config.json, but does not: where it offers GGUF files, name one, as in "
            f"'{repo_id}:file.gguf'"
        )
    return folder


def load_tokenizer(name_or_path: str | Path, chat_template: str | Path = "") -> PreTrainedTokenizerBase:
    """Load a tokenizer for FunctionGemma's format.

    Args:
        name_or_path: As for find_model; with a `chat_template`, a folder with nothing but tokenizer.json is enough.
        chat_template: A Jinja file that replaces the tokenizer's own template; "standin" for the stand-in's, which
            renders as FunctionGemma's does; "" for its own.

    Returns:
        The tokenizer, padding on the right.

    Raises:
        ModelError: It cannot be loaded, has no chat template or pad token, splits a control token, has tokens that the
            model does not know, or a chat template that renders nothing or does not end.
    """
    template = ""
    if chat_template:
        path = CHECKPOINT / "chat_template.jinja" if str(chat_template) == STANDIN else Path(chat_template)
        if not path.is_file():
            raise ModelError(
                f"the chat template {str(chat_template)!r} must be a Jinja file or {STANDIN!r}: check the path"
            )
        template = read_text(path)
    bare = Path(name_or_path) / "tokenizer.json"
    if template and bare.is_file() and not bare.with_name("tokenizer_config.json").exists():
        folder = bare.parent
        with blame(f"{folder.name}/{bare.name}", "must hold a tokenizer", "download it again"):
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_file=str(bare), bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token="<unk>"
            )
        tokenizer.name_or_path = str(folder)
    else:
        folder = find_model(str(name_or_path))
        tokenizer = _load_gguf_tokenizer(folder) if is_gguf(folder) else load_folder_tokenizer(folder)
    tokenizer.chat_template = template or tokenizer.chat_template
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {folder.name!r} must carry a chat template: copy chat_template.jinja there")
    require_control_tokens(tokenizer, folder.name)
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f'the tokenizer of {folder.name!r} must have a pad token, but has none: add "pad_token": "{PAD}" to '
            "tokenizer_config.json"
        )
    check_template(tokenizer, str(chat_template) or _name_template(folder))
    return tokenizer


def _name_template(folder: Path) -> str:
    """Return the file that a tokenizer's chat template comes from, for messages."""
    if is_gguf(folder):
        return folder.name
    jinja = folder / "chat_template.jinja"
    return f"{folder.name}/{jinja.name if jinja.is_file() else 'tokenizer_config.json'}"


def _load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, with its chat template or this package's."""
    from fgtools.models.gguf import open_gguf
    from fgtools.models.gguf_vocabulary import build_tokenizer, choose_template

    header = open_gguf(path)
    tokenizer = load_folder_tokenizer(CHECKPOINT) if _has_standins(header) else build_tokenizer(header, path)
    tokenizer.chat_template, _ = choose_template(header, _read_template())
    return tokenizer


def _has_standins(header: GgufHeader) -> bool:
    """Return whether a GGUF file's tokens are the stand-in's, whose way of splitting a text no GGUF file can say."""
    tokens = header.metadata["tokenizer.ggml.tokens"]
    own = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return [text.replace("▁", " ") for text in tokens] == [text for text, _ in own]


def _read_template() -> str:
    return (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")


def describe_gguf(path: Path) -> str:
    """Return what was made of a GGUF file: number formats, vocabulary, control tokens, stop ids and chat template.

    Raises:
        ModelError: It is no whole Gemma 3 text model with FunctionGemma's control tokens in their places.
    """
    from fgtools.models.gguf import build_config, describe_weights, open_gguf
    from fgtools.models.gguf_vocabulary import describe_vocabulary

    header = open_gguf(path)
    build_config(header, path)
    tokenizer = "\ntokenizer: the stand-in's own, for the file holds its tokens" if _has_standins(header) else ""
    weights, vocabulary = describe_weights(header, path), describe_vocabulary(header, path, _read_template())
    return f"{weights}\n{vocabulary}{tokenizer}"


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
        ModelError: It cannot be loaded, has no weights, they do not fit its config, or some are not numbers.
    """
    path = find_model(str(name_or_path))
    decision = choose_device_and_dtype(None if device == "cpu" else detect_capability())
    if is_gguf(path):
        from fgtools.models.gguf import load_gguf_model

        notes = [] if quiet else [describe_gguf(path)]
        with blame(path.name, "must load", "download it again"):
            model: PreTrainedModel = load_gguf_model(path, decision.dtype)
    else:
        model, notes = load_folder_model(path, decision.dtype)
    if KAGGLE_HANDLE.match(str(name_or_path)) and path == find_attached_model(str(name_or_path)):
        notes.insert(0, f"model: attached, {path}")
    if not quiet:
        notes.append(f"{device or decision.device}, {str(decision.dtype).removeprefix('torch.')}: {decision.reason}")
        capability = None if device == "cpu" else detect_capability()
        print(*notes, describe_attention(model.config._attn_implementation, capability), sep="\n")
    model = model.to(device or decision.device).eval()
    require_finite(model, path.name)
    return model


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
