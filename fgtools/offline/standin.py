"""The script that makes the offline stand-in: tokenizer, model, pretraining (`python -m fgtools.offline.standin`).

The stand-in is a real Gemma3ForCausalLM with FunctionGemma's control tokens, some 280 times smaller. It has seen
made-up tools only (`curriculum`), never the catalogue's. Its figures say nothing about FunctionGemma.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    HfArgumentParser,
    PreTrainedTokenizerFast,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from fgtools.calls.tokens import BOS, CONTROL_IDS, END_TURN, EOS, PAD, START_RESPONSE, START_TURN
from fgtools.files import InputError, write_parts
from fgtools.offline import CHECKPOINT
from fgtools.offline.catalogue import read_text
from fgtools.offline.curriculum import build_rows, load_endings, load_words
from fgtools.offline.shared_prompts import Batch, attend_to_prompt, build_batch, encode
from fgtools.profiles import DEVELOPER_TEXT

FIXED_IDS = {**CONTROL_IDS, "\n": 107}
"""FunctionGemma's ids of its control tokens, which the stand-in keeps."""

HEADS, HEAD_DIM = 4, 32

LOG_STEPS, SAVE_STEPS = 100, 500

STATE = "state.pt"
"""The file of a checkpoint that is not done: what its training needs to go on."""

SPECIAL = (PAD, EOS, BOS, "<unk>", START_RESPONSE, START_TURN, END_TURN)
"""The control tokens that FunctionGemma's tokenizer flags as special; the call marks are not."""

BOILERPLATE = (
    DEVELOPER_TEXT,
    *"declaration: {description: description: ,parameters:{properties:{ ,parameters:{ properties:{".split(),
    *",required:[ required:[ ,type: type: ,enum:[ ,items:{type: },type: }, }} ],type:".split(),
    *"call: response: STRING INTEGER NUMBER BOOLEAN ARRAY OBJECT".split(),
)
"""Texts of every prompt, one token each, so that a prompt is mostly its words."""

FRAGMENTS = (
    "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic "
    "ne ea ra ce li ch ll be ma si om ur ing ion the and ent tion for ter hat tha ere ate his con res ver all ons nce "
    "men ith ted ers pro thi wit are ess not ive was ect rea com eve per int est sta cti ica ist ear ain one our iti "
    "rat ment able ally ness ction ation"
).split()
"""Letter groups for words outside the vocabulary, so that real rows are not split into single letters."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: whole words, the space as its own token, single digits, bytes for everything else.

    The ending of a tool's name (`_get`) is one token, so that a name is its noun and what follows it.

    Returns:
        A tokenizer with FunctionGemma's control ids and our chat template; any text round-trips.
    """
    pieces = [" ", *(chr(code) for code in range(33, 127)), *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*FRAGMENTS, *load_words(), *load_endings(), "user", "model", "developer"]
    free = iter(dict.fromkeys([*pieces, *words, *BOILERPLATE]))
    by_id = {index: token for token, index in FIXED_IDS.items()}
    vocabulary: list[str] = []
    while token := by_id.get(len(vocabulary)) or next(free, None):
        vocabulary.append(token)
    fragments = set(FRAGMENTS) - set(load_words())
    scores = [(token, -9.0 if token in fragments else -10.0 if len(token) == 1 else -5.0) for token in vocabulary]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=FIXED_IDS["<unk>"], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"_?[A-Za-z]+|\d|\s|[^\sA-Za-z\d]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, FIXED_IDS[BOS])]
    )
    control = [token for token in FIXED_IDS if token != "\n"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    plain = [token for token in (*control, *BOILERPLATE) if token not in SPECIAL]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in plain])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token="<unk>",
        additional_special_tokens=[START_RESPONSE, START_TURN, END_TURN],
        model_max_length=32768,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    wrapped.chat_template = read_text("chat_template.jinja")
    return wrapped


def build_model(vocabulary: int, hidden: int, layers: int) -> Gemma3ForCausalLM:
    """Build the untrained stand-in, with Gemma 3's own scaling of scores and pattern of layers.

    Args:
        vocabulary: Tokens of its tokenizer.
        hidden: Width.
        layers: Layers; every sixth one attends to everything, the others to 512 tokens.

    Returns:
        The model, in fp32.
    """
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        head_dim=HEAD_DIM,
        query_pre_attn_scalar=HEAD_DIM,
        sliding_window=512,
        max_position_embeddings=32768,
        initializer_range=0.06,  # at this width the usual 0.02 learns to copy much later
    )
    model = Gemma3ForCausalLM(config)
    stops = [FIXED_IDS[token] for token in (EOS, START_RESPONSE, END_TURN)]
    model.generation_config = GenerationConfig(bos_token_id=2, eos_token_id=stops, pad_token_id=0, do_sample=False)
    _initialize(model)
    return model


@torch.no_grad()
def _initialize(model: Gemma3ForCausalLM) -> None:
    """Start near looking up and copying: half of the heads attend to equal tokens, all heads copy what they attend to.

    Mimetic initialization (Trockman and Kolter, 2023); the embeddings outweigh what the layers add at first.
    """
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.125)
    width = model.config.hidden_size
    for layer in model.model.layers:
        layer.post_attention_layernorm.weight.fill_(-0.7)  # Gemma stores the scale's offset from 1
        layer.post_feedforward_layernorm.weight.fill_(-0.7)
        attention = layer.self_attn
        for norm in (attention.q_norm, attention.k_norm):
            norm.weight.fill_(2**0.5 - 1)  # scores up to 2 * sqrt(32) = 11: enough to single one token out
        keys, values = (0.35 * torch.nn.init.orthogonal_(torch.empty(HEAD_DIM, width)) for _ in range(2))
        attention.k_proj.weight.copy_(keys)
        attention.v_proj.weight.copy_(values)
        attention.q_proj.weight[: HEAD_DIM * HEADS // 2].copy_(keys.repeat(HEADS // 2, 1))
        attention.o_proj.weight.copy_(values.T.repeat(1, HEADS))


@dataclass(frozen=True)
class Pretraining:
    """The numbers of the pretraining; all of them are in the checkpoint's standin.json.

    Once the stand-in chooses and copies, the first token of every answer, which decides whether it is a call, counts
    for several (`decisions_after`, `decision_weight`).
    """

    seed: int = 7
    steps: int = 15000
    prompts_per_step: int = 3
    requests_per_prompt: int = 12
    learning_rate: float = 4e-3
    easy_steps: int = 600
    mixed_steps: int = 1200
    least_ease: float = 0.12
    decisions_after: int = 5500
    decision_weight: float = 6.0
    hidden: int = 96
    layers: int = 6


class PretrainingRows(torch.utils.data.IterableDataset):
    """Batches of made-up rows: prompts whose requests are of about one length; the first `done` are left out."""

    def __init__(self, numbers: Pretraining, done: int = 0) -> None:
        self.numbers, self.done = numbers, done

    def __iter__(self) -> Iterator[Batch]:
        tokenizer, template = build_tokenizer(), read_text("chat_template.jinja")
        draw = random.Random(self.numbers.seed)
        size, window = self.numbers.prompts_per_step, 16
        for start in range(0, self.numbers.steps, window):
            ease = 1.0 - max(0, start - self.numbers.easy_steps) / self.numbers.mixed_steps
            ease = max(ease, self.numbers.least_ease)
            rows = [build_rows(draw, ease, self.numbers.requests_per_prompt) for _ in range(size * window)]
            order = list(range(window))
            draw.shuffle(order)
            if start + window <= self.done:
                continue
            prompts = [encode(one, tokenizer, template) for one in rows]
            prompts.sort(key=lambda prompt: (max(len(ids) for ids, _ in prompt.requests), len(prompt.ids)))
            places = order[max(0, self.done - start) : self.numbers.steps - start]
            for place in places:
                yield build_batch(prompts[place * size : (place + 1) * size])


def completion_loss(
    model: Gemma3ForCausalLM, batch: Batch, decision_weight: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss over the completions' tokens, its plain mean, and the share of them predicted right.

    Args:
        model: The model.
        batch: The prompts and their requests.
        decision_weight: How much the first token of an answer counts, which decides whether it is a call; others
            count 1.
    """
    masks = dict.fromkeys(("full_attention", "sliding_attention"), batch)  # hardly a row is longer than the window
    states = model.model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=masks, use_cache=False)
    wanted = batch.labels[:, 1:] != -100
    first = wanted & (batch.labels[:, :-1] == -100)
    logits = model.lm_head(states.last_hidden_state[:, :-1][wanted])
    targets = batch.labels[:, 1:][wanted]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    weights = 1 + (decision_weight - 1) * first[wanted]
    right = (logits.argmax(-1) == targets).float().mean()
    return (weights * losses).sum() / weights.sum(), losses.detach().mean(), right


def pretrain(numbers: Pretraining, folder: Path) -> None:
    """Build the checkpoint: train the stand-in on made-up rows and save it with its tokenizer.

    A training that was stopped goes on where it was last saved, and ends as if it had not been.

    Args:
        numbers: Steps, seed, sizes.
        folder: Where the checkpoint goes; written every SAVE_STEPS steps, with the state of the optimizers until the
            training is done.
    """
    torch.manual_seed(numbers.seed)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), numbers.hidden, numbers.layers)
    ALL_ATTENTION_FUNCTIONS.register("prompt", attend_to_prompt)
    model.set_attn_implementation("prompt")
    optimizers = _build_optimizers(model, numbers.learning_rate)
    done, before, log = _load_state(folder / STATE, numbers, model, optimizers)
    rows = PretrainingRows(numbers, done)
    loader = torch.utils.data.DataLoader(rows, batch_size=None, num_workers=1, prefetch_factor=8)
    started, losses, hits = time.perf_counter() - before, [], []
    for step, batch in enumerate(loader, start=done + 1):
        weight = numbers.decision_weight if step > numbers.decisions_after else 1.0
        loss, plain, right = completion_loss(model, batch, weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * _schedule(step - 1, numbers.steps)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(plain.item())
        hits.append(right.item())
        if step % LOG_STEPS == 0:
            log.append((step, *(round(fmean(one), 4) for one in (losses, hits)), round(time.perf_counter() - started)))
            print("step {:>6}  loss {:.4f}  token accuracy {:.4f}  {} s".format(*log[-1]), flush=True)
            losses, hits = [], []
        if step % SAVE_STEPS == 0 or step == numbers.steps:
            save(model, tokenizer, numbers, step, log, folder)
            states = [optimizer.state_dict() for optimizer, _ in optimizers]
            whole = {**vars(numbers), "done": step, "log": log, "model": model.state_dict(), "optimizers": states}
            buffer = io.BytesIO()
            torch.save(whole, buffer)
            write_parts(folder / STATE, [buffer.getbuffer()])
    (folder / STATE).unlink()


def _load_state(
    file: Path,
    numbers: Pretraining,
    model: Gemma3ForCausalLM,
    optimizers: Sequence[tuple[torch.optim.Optimizer, float]],
) -> tuple[int, int, list[tuple[int, float, float, int]]]:
    """Load what a stopped training left; return its steps, seconds and log, or 0, 0 and no log where there is none."""
    if not file.exists():
        return 0, 0, []
    state = torch.load(file, weights_only=True)
    other = {name: state[name] for name, value in vars(numbers).items() if state[name] != value}
    if other:
        raise InputError(f"{file} must be of a training with the same numbers, got {other}: delete it to begin anew")
    model.load_state_dict(state["model"])
    for (optimizer, _), saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    log = [tuple(entry) for entry in state["log"]]
    print(f"going on after step {state['done']} of {numbers.steps}", flush=True)
    return state["done"], log[-1][-1] if log else 0, log


def _build_optimizers(model: Gemma3ForCausalLM, learning_rate: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return Muon for the layers' matrices and AdamW for the rest, each with its peak learning rate."""
    inner, rest = [], []
    for name, weight in model.named_parameters():
        (inner if weight.ndim == 2 and "embed" not in name else rest).append(weight)
    return [
        (torch.optim.Muon(inner, lr=5 * learning_rate, weight_decay=0.01), 5 * learning_rate),
        (torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True), learning_rate),
    ]


def _schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: rising over 200 steps, constant, falling to 0 over the last third."""
    falling = (steps - step) / (steps / 3)
    return min((step + 1) / 200, 1.0, 0.5 - 0.5 * math.cos(math.pi * min(1.0, falling)))


def save(
    model: Gemma3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    numbers: Pretraining,
    steps: int,
    log: Sequence[tuple[int, float, float, int]],
    folder: Path,
) -> None:
    """Write the checkpoint and, beside it, what it was made from and its log.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        numbers: The numbers of the pretraining.
        steps: Steps that are done.
        log: By hundred steps the step, mean loss, share of the answers' tokens that are right, and seconds so far.
        folder: Where to.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sources = ("curriculum.py", "words.txt", "topics.txt", "pools.txt", "catalogue.txt", "chat_template.jinja")
    facts = {
        **vars(numbers),
        "steps_done": steps,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers")},
        "sources": {name: hashlib.sha256(read_text(name).encode()).hexdigest() for name in sources},
    }
    lines = ",\n  ".join(map(json.dumps, log))
    text = json.dumps(facts, indent=1).removesuffix("\n}") + f',\n "log": [\n  {lines}\n ]\n}}\n'
    (folder / "standin.json").write_text(text)


def main() -> None:
    """Run the pretraining from the command line."""
    parser = HfArgumentParser(Pretraining, description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=CHECKPOINT)
    parser.add_argument("--threads", type=int, default=1)
    numbers, options = parser.parse_args_into_dataclasses()
    torch.set_num_threads(options.threads)
    pretrain(numbers, options.folder)


if __name__ == "__main__":
    main()
