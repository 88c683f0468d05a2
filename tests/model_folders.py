"""Odd and hostile model folders, and what becomes of each: `python -m tests.model_folders` prints the table.

Every folder is a copy of the stand-in with one thing changed. `outcome` loads its tokenizer and its weights, as every
command and notebook does.
"""

from __future__ import annotations

import codecs
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors.torch import load_file, save_file

from fgtools.models import ModelError, load_model, load_tokenizer
from fgtools.offline import CHECKPOINT

LOADS = "loads"
CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
VOCABULARY, TEMPLATE, WEIGHTS = "tokenizer.json", "chat_template.jinja", "model.safetensors"
INDEX, PICKLE = "model.safetensors.index.json", "pytorch_model.bin"

Change = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """A folder.

    Attributes:
        label: What is odd about it.
        change: Changes a copy of the stand-in; a path or text that it returns is loaded in its place.
        wanted: What the error must say, file included; LOADS where it must load.
    """

    label: str
    change: Change
    wanted: str


def rewrite(file: str, content: bytes | str) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def remove(*files: str) -> Change:
    return lambda folder: [(folder / file).unlink() for file in files]


def cut(file: str, size: int) -> Change:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def set_values(file: str, **values: Any) -> Change:
    """Change values of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        content = {**json.loads((folder / file).read_text()), **values}
        kept = {name: value for name, value in content.items() if value is not None}
        (folder / file).write_text(json.dumps(kept))

    return change


def replace_text(file: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    def apply(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights = change(weights) or weights
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return apply


def quantise(**said: Any) -> Change:
    return set_values(CONFIG, quantization_config=said)


class Code:
    """What a hostile pickle holds: unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "the pickle's code was run")


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / PICKLE)
    (folder / WEIGHTS).unlink()


def pickle_code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"model.embed_tokens.weight": Code(folder / "RAN")}, folder / PICKLE)


def bring_code(file: str, name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "evil.py").write_text(f"open({str(folder / 'RAN')!r}, 'w').write('the code was run')\n")
        set_values(file, auto_map={name: ["evil.Evil", None] if name == "AutoTokenizer" else "evil.Evil"})(folder)

    return change


def shard(folder: Path, **changes: Any) -> None:
    """Split the weights into two files with an index; `changes` are entries of its weight_map."""
    weights = load_file(folder / WEIGHTS)
    names = sorted(weights)
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    parts = names[::2], names[1::2]
    for file, part in zip(files, parts, strict=True):
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {**weight_map, **changes}}))
    (folder / WEIGHTS).unlink()


def lose_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def hold_adapters(base: str | None, config: bool) -> Change:
    def change(folder: Path) -> None:
        said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "base_model_name_or_path": base}
        (folder / "adapter_config.json").write_text(json.dumps(said))
        save_file({"base_model.x.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
        (folder / WEIGHTS).unlink()
        if not config:
            (folder / CONFIG).unlink()

    return change


def template(text: str) -> Change:
    return rewrite(TEMPLATE, text)


def loop(inside: str) -> str:
    ranges = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc")
    return ranges + inside + "{% endfor %}" * 3


def deny(folder: Path) -> None:
    (folder / CONFIG).chmod(0)


def point_to_itself(folder: Path) -> Path:
    link = folder / "link"
    link.symlink_to(link)
    return link


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def poison(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights["model.norm.weight"].__setitem__(3, value)


DEEP = "[" * 100_000 + "]" * 100_000
CONFIGS = (
    Case("config.json missing", remove(CONFIG), r"'copy' must hold config\.json"),
    Case("config.json empty", rewrite(CONFIG, ""), r"copy/config\.json must hold one JSON object"),
    Case("config.json cut off", cut(CONFIG, 300), r"copy/config\.json must hold one JSON object"),
    Case("config.json of random bytes", rewrite(CONFIG, bytes(range(256))), r"copy/config\.json must be UTF-8"),
    Case("config.json null", rewrite(CONFIG, "null"), r"config\.json must hold one JSON object, got null"),
    Case("config.json a list", rewrite(CONFIG, "[1]"), r"config\.json must hold one JSON object, got list"),
    Case("config.json nested 100,000 deep", rewrite(CONFIG, DEEP), r"config\.json must .* nests too deep"),
    Case("config.json in UTF-16", rewrite(CONFIG, "{}".encode("utf-16")), r"config\.json must be UTF-8"),
    Case("config.json with a byte-order mark", rewrite(CONFIG, codecs.BOM_UTF8 + b"{}"), "byte-order mark"),
    Case("config.json with NaN", replace_text(CONFIG, "1e-06", "NaN"), r"config\.json .* NaN is no number"),
    Case("config.json with a size twice", replace_text(CONFIG, "{", '{"head_dim": 8,'), "'head_dim' stands there"),
    Case("config.json that cannot be read", deny, r"config\.json must be read, but Permission denied"),
    Case("another architecture: llama", set_values(CONFIG, model_type="llama"), r"gemma3_text.* got 'llama'"),
    Case("another architecture: t5", set_values(CONFIG, model_type="t5"), r"config\.json .* got 't5'"),
    Case("an architecture of the future", set_values(CONFIG, model_type="gemma9"), r"config\.json .* got 'gemma9'"),
    Case("Gemma 3 with images", set_values(CONFIG, model_type="gemma3"), r"config\.json .* got 'gemma3'"),
    Case("no model_type", set_values(CONFIG, model_type=None), r"config\.json .* got None"),
    Case("a negative size", set_values(CONFIG, hidden_size=-96), r"config\.json must have hidden_size from 1"),
    Case("no layers", set_values(CONFIG, num_hidden_layers=0), r"config\.json must have num_hidden_layers from 1"),
    Case("10^12 layers", set_values(CONFIG, num_hidden_layers=10**12), r"config\.json must have num_hidden_layers"),
    Case("a size in words", set_values(CONFIG, vocab_size="many"), r"config\.json must have vocab_size .* got 'many'"),
    Case("an eps below 0", set_values(CONFIG, rms_norm_eps=-1.0), r"config\.json must have rms_norm_eps above 0"),
    Case("a layer type too few", set_values(CONFIG, layer_types=["full_attention"]), "layer_types of 6 layers, got"),
    Case("unknown layer types", set_values(CONFIG, layer_types=["odd"] * 6), r"copy/config\.json must be a config"),
    Case("code of its own in config.json", bring_code(CONFIG, "AutoModelForCausalLM"), r"config\.json .*auto_map"),
    Case("code of its own for the tokenizer", bring_code(TOKENIZER, "AutoTokenizer"), rf"{TOKENIZER} .*auto_map"),
    Case("attention that is a program", set_values(CONFIG, _attn_implementation="a/b"), "sdpa or eager.* got 'a/b'"),
    Case("weights under another name", set_values(CONFIG, transformers_weights="x"), "must not hold transformers_weig"),
)
QUANTISED = (
    Case("bitsandbytes", quantise(quant_method="bitsandbytes", load_in_4bit=True), r"config\.json .*\(bitsandbytes\)"),
    Case("gptq", quantise(quant_method="gptq", bits=4), r"config\.json .*quantised \(gptq\)"),
    Case("awq", quantise(quant_method="awq", bits=4), r"config\.json .*quantised \(awq\)"),
    Case("fp8", quantise(quant_method="fp8"), r"config\.json .*quantised \(fp8\)"),
    Case("an unknown quantisation", quantise(bits=3), r"config\.json .*quantised \(an unknown method\)"),
    Case("quantization_config a text", set_values(CONFIG, quantization_config="4bit"), "an unknown method"),
)
WEIGHT_FILES = (
    Case("no weights", remove(WEIGHTS), rf"'copy' must hold weights \({WEIGHTS}\)"),
    Case("weights empty", rewrite(WEIGHTS, b""), rf"copy/{WEIGHTS} must be a whole safetensors file"),
    Case("weights of zeros", rewrite(WEIGHTS, bytes(999)), rf"copy/{WEIGHTS} must be a whole safetensors file"),
    Case("weights cut in the header", cut(WEIGHTS, 500), rf"copy/{WEIGHTS} must be a whole safetensors file"),
    Case("weights cut in the data", cut(WEIGHTS, 900_000), rf"copy/{WEIGHTS} must be a whole safetensors file"),
    Case(
        "weights that are a pointer of Git LFS",
        rewrite(WEIGHTS, "version https://git-lfs"),
        rf"{WEIGHTS} .*git lfs pull",
    ),
    Case("other shapes", set_values(CONFIG, hidden_size=32), rf"{WEIGHTS} must have .* of shape .*as config\.json"),
    Case("another vocabulary size", set_values(CONFIG, vocab_size=4096), rf"{WEIGHTS} must have .*embed_tokens"),
    Case("a layer missing", set_values(CONFIG, num_hidden_layers=7, layer_types=None), "tensors are missing, such as"),
    Case("a layer too many", set_values(CONFIG, num_hidden_layers=5, layer_types=None), "tensors belong to none"),
    Case(
        "weights of 8-bit integers",
        change_weights(lambda weights: {name: weight.to(torch.int8) for name, weight in weights.items()}),
        rf"copy/{WEIGHTS} must hold plain weights .* is I8",
    ),
    Case(
        "weights of fp8",
        change_weights(lambda weights: {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items()}),
        rf"copy/{WEIGHTS} must hold plain weights .* is F8_E4M3",
    ),
    Case("a weight that is NaN", change_weights(poison(float("nan"))), "'copy' must be numbers, but 1 of .*norm"),
    Case("a weight that is infinite", change_weights(poison(float("inf"))), "'copy' must be numbers, but 1 of .*norm"),
    Case(
        "a tensor that is no part of the model",
        change_weights(lambda weights: {**weights, "vision.weight": torch.ones(2)}),
        LOADS,
    ),
    Case("two files with an index", shard, LOADS),
    Case("a file of the index missing", lose_shard, r"'copy' must hold model-00002-of-00002\.safetensors, which"),
    Case(
        "an index with a tensor that no file holds",
        lambda folder: shard(folder, **{"model.extra": "model-00001-of-00002.safetensors"}),
        r"copy/model-00001-of-00002\.safetensors must hold model\.extra, as the index says",
    ),
    Case(
        "an index that leaves the folder",
        lambda folder: shard(folder, **{"model.extra": "../other.safetensors"}),
        rf"copy/{INDEX} must name files of its own folder",
    ),
    Case(
        "an index without weight_map",
        lambda folder: (shard(folder), (folder / INDEX).write_text("{}")),
        rf"copy/{INDEX} must say under weight_map",
    ),
    Case("a pickle of weights", pickle_weights, LOADS),
    Case("a pickle with code", pickle_code, r"pytorch_model\.bin of 'copy' .*holds code, which is never run"),
)
TOKENIZERS = (
    Case("tokenizer.json missing", remove(VOCABULARY), r"'copy' must hold tokenizer\.json"),
    Case("tokenizer.json empty", rewrite(VOCABULARY, ""), r"tokenizer of 'copy' \(tokenizer\.json.* must load"),
    Case("tokenizer.json cut off", cut(VOCABULARY, 9000), r"tokenizer of 'copy' \(tokenizer\.json.* must load"),
    Case("tokenizer.json null", rewrite(VOCABULARY, "null"), r"tokenizer of 'copy' \(tokenizer\.json.* must load"),
    Case("tokenizer.json without a model", rewrite(VOCABULARY, "{}"), r"tokenizer of 'copy' \(tokenizer\.json.* must"),
    Case("tokenizer_config.json missing", remove(TOKENIZER), rf"'copy' must hold {TOKENIZER}"),
    Case("tokenizer_config.json a list", rewrite(TOKENIZER, "[]"), rf"copy/{TOKENIZER} must hold one JSON object"),
    Case("tokenizer_config.json cut off", cut(TOKENIZER, 99), rf"copy/{TOKENIZER} must hold one JSON object"),
    Case("a tokenizer class that does not exist", set_values(TOKENIZER, tokenizer_class="Nobody"), LOADS),
    Case("no pad token", set_values(TOKENIZER, pad_token=None), "'copy' must have a pad token"),
    Case("tokens beyond the embedding", set_values(TOKENIZER, extra_special_tokens=["<new>"]), r"'<new>' \(2680\)"),
    Case("a control token of two pieces", replace_text(VOCABULARY, '"<escape>"', '"<es-cape>"'), "'<es-cape>'"),
)
TEMPLATES = (
    Case("no chat template", remove(TEMPLATE), r"must carry a chat template: copy chat_template\.jinja"),
    Case("a template that does not compile", template("{% if %}"), rf"copy/{TEMPLATE} .*TemplateSyntaxError.*line 1"),
    Case("a template that raises", template("{{ raise_exception('no') }}"), rf"copy/{TEMPLATE} .*TemplateError: no"),
    Case("a template that divides by 0", template("{{ 1 / 0 }}"), rf"copy/{TEMPLATE} .*ZeroDivisionError"),
    Case("a template that reads Python", template("{{ ''.__class__.__mro__ }}"), rf"copy/{TEMPLATE} .*SecurityError"),
    Case("a template that calls itself", template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "RecursionError"),
    Case("a template that never ends", template(loop("")), rf"copy/{TEMPLATE}: .* within .* seconds.* does not end"),
    Case("a template that writes on and on", template(loop("x")), rf"copy/{TEMPLATE}: .* within .* seconds.* not end"),
    Case("a template that writes 5 MB", template("{{ 'x' * 5000000 }}"), rf"copy/{TEMPLATE} .* writes 5,000,000"),
    Case("a template that writes 10 GB", template("{{ 'x' * 10000000000 }}"), rf"copy/{TEMPLATE}: .* 0\.5 GiB of"),
    Case(
        "a template that joins long texts",
        template("{% set s = messages[0].content * 100000000 %}{{ s ~ s ~ s ~ s ~ s ~ s }}"),
        rf"copy/{TEMPLATE}: .* 0\.5 GiB of",
    ),
    Case("a template that counts too far", template("{{ 9 ** 9 ** 9 }}"), rf"copy/{TEMPLATE}: .* to a power.*line 1"),
    Case("a template not in UTF-8", rewrite(TEMPLATE, b"\xff\xfe"), r"tokenizer of 'copy' .*chat_template\.jinja"),
)
SETTINGS = (
    Case("generation_config.json missing", remove(GENERATION), LOADS),
    Case("generation_config.json cut off", cut(GENERATION, 30), rf"copy/{GENERATION} must hold one JSON object"),
    Case("generation_config.json a list", rewrite(GENERATION, "[]"), rf"copy/{GENERATION} must hold one JSON object"),
    Case("temperature beside do_sample false", set_values(GENERATION, do_sample=False, temperature=0.3), LOADS),
    Case("settings of another use", set_values(GENERATION, repetition_penalty=1.3, forced_bos_token_id=5), LOADS),
)
PLACES = (
    Case("an empty folder", empty, r"'empty' must hold config\.json, but does not: it is empty"),
    Case("a file", lambda folder: folder / WEIGHTS, r"must be a folder or a \.gguf file, got the file"),
    Case("a link to itself", point_to_itself, "leads nowhere"),
    Case("a folder that is not there", lambda folder: folder / "gone", "does not exist: check the path"),
    Case("adapters without a base", hold_adapters(None, False), r"adapter_config\.json .* it does not name"),
    Case("adapters of another base", hold_adapters("meta/llama", False), r"adapter_config\.json .* meta/llama"),
    Case("adapters beside config.json", hold_adapters("meta/llama", True), r"adapter_config\.json .* meta/llama"),
    Case("a hub id without network", lambda folder: "nobody/nothing", "model 'nobody/nothing'"),
)
CASES = (*CONFIGS, *QUANTISED, *WEIGHT_FILES, *TOKENIZERS, *TEMPLATES, *SETTINGS, *PLACES)


def outcome(case: Case, above: Path) -> str:
    """Make the folder of a case, load it, and return LOADS or what the error says.

    Args:
        case: The case.
        above: Where the folder is made.
    """
    folder = above / "copy"
    shutil.copytree(CHECKPOINT, folder)
    try:
        changed = case.change(folder)
        name = changed if isinstance(changed, (str, Path)) else folder
        try:
            load_tokenizer(name)
            load_model(name, device="cpu", quiet=True)
        except ModelError as error:
            assert not (folder / "RAN").exists(), f"{case.label}: code of the folder was run"
            return str(error)
        return LOADS
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Print what becomes of every folder."""
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    tried = [case for case in CASES if case.change is not deny or os.geteuid()]  # permissions do not bind root
    said = {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in tried:
            said[case.label] = outcome(case, Path(scratch)).replace(f"{scratch}/", "")
            print(f"{case.label}: {said[case.label]}", flush=True)
    n_loaded = list(said.values()).count(LOADS)
    print(f"{len(tried)} of {len(CASES)} folders: {n_loaded} load, {len(tried) - n_loaded} are refused with a sentence")


if __name__ == "__main__":
    main()
