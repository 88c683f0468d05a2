"""A model folder opened with transformers, after `folder` has looked at it: config, tokenizer, weights.

Knows transformers' loaders; not hubs or GGUF files. Whatever a loader raises becomes a ModelError that names the
folder, and no loader runs code of the folder's own or asks a hub for files that it lacks.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fgtools.calls.tokens import SPECIAL_TOKEN
from fgtools.models.decoding import keep_plain_settings
from fgtools.models.errors import ModelError
from fgtools.models.folder import WEIGHTS, blame, check_config, check_tokenizer_files, check_weights, read_model_json

_GENERATION = "generation_config.json"


def load_config(folder: Path) -> PretrainedConfig:
    """Return the config of a model folder as transformers reads it; raises ModelError as check_config."""
    check_config(folder)
    with blame(f"{folder.name}/config.json", "must be a config that transformers reads", "download it again"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_folder_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Raises:
        ModelError: The folder is odd or damaged, or its tokenizer has tokens that its model does not know.
    """
    vocabulary = load_config(folder).vocab_size
    check_tokenizer_files(folder)
    what = f"the tokenizer of {folder.name!r} (tokenizer.json, tokenizer_config.json, chat_template.jinja)"
    with blame(what, "must load", "use the tokenizer files of google/functiongemma-270m-it"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if len(tokenizer) > vocabulary:
        _require_embedded(tokenizer, vocabulary, folder.name)
    return tokenizer


def _require_embedded(tokenizer: PreTrainedTokenizerBase, vocabulary: int, name: str) -> None:
    """Check that every token that a text may become has a row in the model's embedding.

    FunctionGemma's two last tokens have none; they stand for images, and no text becomes one of them.
    """
    beyond = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= vocabulary and not SPECIAL_TOKEN.fullmatch(token)
    }
    if beyond:
        first = min(beyond, key=beyond.__getitem__)
        raise ModelError(
            f"the tokenizer.json of {name!r} must have tokens for the {vocabulary:,} rows of the embedding alone "
            f"(vocab_size in config.json), but {len(beyond):,} have ids beyond it, such as {first!r} "
            f"({beyond[first]}): use the tokenizer files that came with the weights"
        )


def load_folder_model(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, list[str]]:
    """Load the model of a folder; return it and what has to be said of it.

    Raises:
        ModelError: The folder is odd or damaged, or its weights do not fit its config.
    """
    check_weights(folder, check_config(folder))
    load_config(folder)  # here, so that what is wrong with it is said of its file
    if (folder / _GENERATION).is_file():
        settings = read_model_json(folder / _GENERATION)
        with blame(f"{folder.name}/{_GENERATION}", "must hold settings that transformers reads", "delete the file"):
            GenerationConfig.from_dict(settings)
    with blame(f"the model {folder.name!r}", "must load", "download it again, or save it again with transformers"):
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                output_loading_info=True,
                trust_remote_code=False,
                local_files_only=True,
                weights_only=True,
            )
        except UnpicklingError as error:  # whose text tells how to run the code
            raise ModelError(
                f"the pytorch_model.bin of {folder.name!r} must hold tensors alone, but is damaged or holds code, "
                f"which is never run here: give a model with {WEIGHTS[0]}"
            ) from error
    if missing := loading["missing_keys"]:
        raise ModelError(
            f"the weights of {folder.name!r} must hold every layer of its config, but {len(missing)} "
            f"tensors are missing, such as {min(missing)}: was it saved whole?"
        )
    more = sorted(loading["unexpected_keys"])
    if layers := [name for name in more if ".layers." in name]:
        raise ModelError(
            f"the weights of {folder.name!r} must be of the layers in its config alone, but {len(layers)} tensors "
            f"belong to none, such as {layers[0]}: config.json is of another model"
        )
    left_out = [f"{len(more)} tensors of the folder are no part of the model, such as {more[0]}"] if more else []
    return model, [*left_out, *filter(None, [keep_plain_settings(model)])]


def require_finite(model: PreTrainedModel, name: str) -> None:
    """Check that every weight is a number: a model with one that is not answers nothing, and cannot be trained."""
    weights = list(model.named_parameters())
    # a sum is finite where all its terms are; one that is not may still be of large numbers
    sums = torch.stack([weight.detach().sum(dtype=torch.float32) for _, weight in weights])
    odd = [weights[place] for place in (~sums.isfinite()).nonzero().flatten().tolist()]
    bad = [one for one, weight in odd if not weight.isfinite().all()]
    if bad:
        raise ModelError(
            f"the weights of {name!r} must be numbers, but {len(bad)} of {len(weights)} tensors hold NaN or infinity, "
            f"such as {bad[0]}: its training has diverged or its file is damaged; train it anew with a lower "
            "LEARNING_RATE, or download it again"
        )
