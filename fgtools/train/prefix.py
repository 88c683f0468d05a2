"""The tokens that all rows of a batch begin with, read once: rows with the same tools share most of their prompt.

Knows token ids, labels and the masks of a Gemma 3 model; not trainers. Rows of own tools differ in the request and the
answer alone, some 40 tokens of 250. So their common beginning is put in front once, and behind it what each row has of
its own: every token keeps the position it has in its row, and sees the beginning and its own row, nothing else. Loss
and gradients are those of the rows one by one, since the beginning carries no label; only the order of sums differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgtools.prompts import IGNORED
from fgtools.train.plan import split_by_tokens

LEAST_SAVED = 0.25  # of the tokens of a batch: below that, the larger masks cost more than is saved
LONGEST = 2048  # tokens of one packed sequence: attention grows with the square of it


class Packed(NamedTuple):
    """Rows with a common beginning, as one sequence.

    Attributes:
        input_ids: The beginning, then the rest of every row, 1 x tokens.
        position_ids: The place of every token in its own row, 1 x tokens.
        masks: Which token sees which, by kind of layer; 1 x 1 x tokens x tokens, bool.
        offsets: By row, what turns a place of the row behind the beginning into a place of the sequence.
    """

    input_ids: Tensor
    position_ids: Tensor
    masks: dict[str, Tensor]
    offsets: Tensor


def measure_shared(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> int:
    """Return how many tokens rows begin with alike that are worth being read once; 0: too few.

    The last one is a token before the first label's, so that no label depends on a hidden state that rows share.

    Args:
        ids: Token ids of each row, without padding.
        labels: Their labels.
    """
    if len(ids) < 2:
        return 0
    most = max(0, min(map(len, ids)) - 1)
    shared = next((at for at in range(most) if any(row[at] != ids[0][at] for row in ids)), most)
    for row in labels if _pays(ids, shared) else ():
        shared = next((at - 1 for at in range(shared + 1) if row[at] != IGNORED), shared)
    return shared if _pays(ids, shared) else 0


def _pays(ids: Sequence[Sequence[int]], shared: int) -> bool:
    return shared * (len(ids) - 1) >= LEAST_SAVED * sum(map(len, ids))


def cut_rows(lengths: Sequence[int], shared: int, budget: int) -> list[list[int]]:
    """Cut rows into micro-batches of a budget of tokens: packed where they begin alike, else padded."""
    return split_shared(lengths, shared, budget) if shared else split_by_tokens(lengths, budget)


def count_padded(lengths: Sequence[int], parts: Sequence[Sequence[int]], shared: int) -> int:
    """Return the tokens of micro-batches with their padding, which packed rows do not have."""
    return sum(sum(lengths[row] for row in rows) if shared else lengths[rows[0]] * len(rows) for rows in parts)


def take_rows(inputs: Mapping[str, Any], rows: Sequence[int], width: int) -> dict[str, Any]:
    """Return some rows of a batch, as wide as the longest of them is.

    Args:
        inputs: Tensors of rows x tokens, and `shared`, the tokens of the rows' common beginning; 0 or none: not packed.
        rows: Their numbers.
        width: Tokens of the longest of them.
    """
    tensors = {name: values[list(rows), :width] for name, values in inputs.items() if name != "shared"}
    return {**tensors, "shared": inputs.get("shared", 0) if len(rows) > 1 else 0}


def split_shared(lengths: Sequence[int], shared: int, budget: int) -> list[list[int]]:
    """Cut rows into micro-batches whose tokens, their common beginning counted once, stay within a budget.

    Args:
        lengths: Tokens of each row.
        shared: Tokens of their common beginning.
        budget: Tokens of one micro-batch, of which LONGEST are used at most. A row longer than that is alone.

    Returns:
        Row numbers by micro-batch, longest rows first.
    """
    budget = min(budget, LONGEST)
    batches: list[list[int]] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        own = lengths[row] - shared
        if batches and tokens + own <= budget:
            batches[-1].append(row)
            tokens += own
        else:
            batches.append([row])
            tokens = lengths[row]
    return batches


def pack_rows(input_ids: Tensor, attention_mask: Tensor, shared: int, window: int) -> Packed:
    """Return rows with a common beginning as one sequence.

    Args:
        input_ids: Rows x tokens, padded on the right.
        attention_mask: 1 where a row has a token, rows x tokens.
        shared: Tokens of the common beginning.
        window: Positions that a layer of sliding attention sees, its own included.
    """
    rows, places = attention_mask[:, shared:].nonzero(as_tuple=True)
    device, n_own = input_ids.device, attention_mask[:, shared:].sum(1)
    beginning = torch.arange(shared, device=device)
    positions = torch.cat([beginning, places + shared])
    owners = torch.cat([beginning.new_full((shared,), -1), rows])  # -1: the beginning, which every row sees
    ids = torch.cat([input_ids[0, :shared], input_ids[rows, places + shared]])
    behind = positions[:, None] - positions[None]
    full = (behind >= 0) & ((owners[None] == -1) | (owners[:, None] == owners[None]))
    masks = {"full_attention": full[None, None], "sliding_attention": (full & (behind < window))[None, None]}
    return Packed(ids[None], positions[None], masks, n_own.cumsum(0) - n_own)


def can_pack(model: Any) -> bool:
    """Return whether a model takes masks by kind of layer, in the form that is made here: Gemma 3 with torch's sdpa."""
    config = model.config
    return config.model_type == "gemma3_text" and config._attn_implementation == "sdpa"


def describe_shared(shared: int, lengths: Sequence[int]) -> str:
    """Return a line that says how much of the training rows is read once a micro-batch; "" where nothing is.

    Args:
        shared: Tokens that all of them begin with; 0: none.
        lengths: Tokens of each row.
    """
    if not shared:
        return ""
    mean = sum(lengths) / len(lengths)
    return f"all rows begin with the same {shared} of {mean:.0f} tokens, read once a micro-batch and not once a row\n"
