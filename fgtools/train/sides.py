"""The rows of one side of a training, checked: they fit, carry labels, and the model can read them.

Knows encoded rows, and a model's vocabulary and context; not steps, trainers or what is computed of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fgtools.prompts import IGNORED, Encoded, EncodedRows
from fgtools.train.arguments import TrainingError


@dataclass(frozen=True)
class Side:
    """The rows of one side, training or evaluation.

    Attributes:
        rows: The rows that carry labels.
        given: All that were encoded, those included whose labels were all cut.
    """

    rows: tuple[Encoded, ...]
    given: EncodedRows

    def build_dataset(self) -> Dataset:
        """Return the data set that TRL's trainer reads."""
        columns = {"input_ids": [row.input_ids for row in self.rows], "labels": [row.labels for row in self.rows]}
        return Dataset.from_dict(columns)


def check_side(encoded: EncodedRows | Sequence[Encoded], side: str, budget: int | None) -> Side:
    """Return the rows of one side that carry labels, after a check that they can be trained or evaluated on.

    Args:
        encoded: What encode_rows returned, or its rows.
        side: "training" or "evaluation".
        budget: max_length of the arguments, in tokens; None: any length.

    Raises:
        TrainingError: There is no row, none fits, none carries a label, or they were encoded with another budget.
    """
    if not isinstance(encoded, EncodedRows):
        encoded = EncodedRows(tuple(encoded), ())
    if not encoded.encoded and not encoded.too_long:
        raise TrainingError(f"the {side} split must hold rows, but it is empty: run 02_data with more rows")
    longest = max((len(row.input_ids) for row in encoded.encoded), default=0)
    others = [longest] if budget and longest > budget else []
    others += [one.max_length for one in encoded.too_long if budget and one.max_length != budget]
    if others:
        raise TrainingError(
            f"{side} rows must be encoded with the arguments' max_length, {budget} tokens, but these were with another "
            f"({others[0]}): call encode_rows(rows, tokenizer, recipe, arguments.max_length)"
        )
    if not encoded.encoded:
        raise TrainingError(
            f"a {side} row must fit {encoded.too_long[0].max_length} tokens, but all {len(encoded.too_long)} are "
            "longer: raise MAX_LENGTH or offer fewer tools a row"
        )
    kept = tuple(row for row in encoded.encoded if any(label != IGNORED for label in row.labels[1:]))
    if not kept:
        raise TrainingError(
            f"a {side} row must carry labels, but none of {len(encoded.encoded)} does: their completions lie beyond "
            "the budget: raise MAX_LENGTH, or set OVER_LENGTH to 'reject' or 'prune' in place of 'cut'"
        )
    return Side(kept, encoded)


def require_readable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sides: Sequence[Side]) -> None:
    """Check that the rows fit the model's context, and that it knows their tokens: tokenizers may hold more.

    Raises:
        TrainingError: A row is longer than the context (max_position_embeddings of the model's config), or holds a
            token that the model has no embedding for.
    """
    context, known = model.config.get_text_config().max_position_embeddings, model.get_input_embeddings().num_embeddings
    lengths = [len(row.input_ids) for side in sides for row in side.rows]
    if longer := sum(length > context for length in lengths):
        raise TrainingError(
            f"a row must fit the model's context of {context:,} tokens, but {longer} of {len(lengths)} rows do not, "
            f"the longest with {max(lengths):,}: set MAX_LENGTH (--max-length) to at most {context}, offer fewer "
            "tools, or drop old turns"
        )
    largest = max(max(row.input_ids) for side in sides for row in side.rows)
    if largest >= known:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise TrainingError(
            f"every token of the rows must be among the model's {known}, but {token!r} has the id {largest}: the "
            "tokenizer belongs to another model; load both from one folder"
        )
