"""A tuned model's folder: weights, tokenizer, generation settings, how its replies are read, and its licence files.

Knows what transformers writes and what other loaders and engines look for beside it; not how a model was trained.
"""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fgtools.files import make_folder, name_file, read_json, replace_folder, write_text
from fgtools.models.decoding import keep_plain_settings
from fgtools.models.licence import write_licence_files
from fgtools.models.load import stop_ids
from fgtools.models.response import response_template
from fgtools.profiles import Recipe, get_recipe

_VOCABULARY = "tokenizer.model"
"""SentencePiece's file of a base model's vocabulary, which converters to GGUF read; transformers does not write it."""

_LOADING = {"is_local", "local_files_only", "trust_remote_code"}
"""What transformers' tokenizer_config.json holds about how a tokenizer was loaded, and not about the tokenizer."""


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, recipe: str | Recipe = "native"
) -> Path:
    """Save a model so that plain transformers loads it, stops where a reply ends and reads the calls in it.

    The folder holds weights, tokenizer with chat template and response template (see `response_template`; one that
    the tokenizer brought is replaced), generation settings, and the tokenizer's tokenizer.model where the folder that
    it was loaded from has one. Where the base is a Gemma model, it holds what Gemma's terms ask for (see `licence`).
    Every file has the permissions of a file newly made.

    Args:
        model: The model; `use_cache` of its config is set, and the stop ids of its generation settings. Whether it
            samples by default stays as it is; other generation settings are left out, see `decoding`.
        tokenizer: Its tokenizer.
        folder: Where to; an older folder is replaced when the new one is complete.
        recipe: How the model was trained: it decides how calls are written, and so how they are read.

    Returns:
        The folder.

    Raises:
        FileError: The folder cannot be written.
    """
    template = response_template(get_recipe(recipe).call_style)
    folder = Path(folder)
    make_folder(folder.parent)
    model.config.use_cache = True
    if line := keep_plain_settings(model):
        print(line)
    settings = model.generation_config
    settings.eos_token_id = stop_ids(tokenizer)
    settings.pad_token_id = tokenizer.pad_token_id
    settings.bos_token_id = tokenizer.bos_token_id
    scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    with name_file(scratch, "made"):
        scratch.mkdir()
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        _write_tokenizer_config(scratch / "tokenizer_config.json", template)
        _copy_vocabulary(tokenizer, scratch)
        source = model.config.name_or_path or tokenizer.name_or_path
        write_licence_files(scratch, source or "", model.config.to_dict())
        _share_permissions(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return replace_folder(scratch, folder)


def _write_tokenizer_config(path: Path, template: dict) -> None:
    """Leave out how the base was loaded, and add the response template.

    transformers writes the options of loading into the config, so the same training gave other files offline than
    online. The template is written by hand: transformers below 5.13 would not, and loads a config that holds it.
    """
    config = {name: value for name, value in read_json(path).items() if name not in _LOADING}
    config["response_template"] = template
    write_text(path, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _copy_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    source = Path(tokenizer.name_or_path, _VOCABULARY) if tokenizer.name_or_path else None
    if source and source.is_file():
        with name_file(source, "read"):
            shutil.copyfile(source, folder / _VOCABULARY)


def _share_permissions(folder: Path) -> None:
    """Give every file the permissions of the config, which is made as any file is: weights are made for one user."""
    mode = (folder / "config.json").stat().st_mode & 0o777
    for path in folder.iterdir():
        path.chmod(mode)
