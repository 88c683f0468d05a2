"""Gold: the call or calls that a model should answer a conversation with, or the reason why there are none.

Knows turns and the notations of calls in them; not rows, splits or models.
"""

from fgtools.gold.context import developer_text
from fgtools.gold.conversation import Rejected
from fgtools.gold.extract import Gold, extract_gold, extract_golds, shorten_reply
from fgtools.gold.messages import match_results, normalize_message, render_block
from fgtools.gold.results import normalize_result

__all__ = [
    "Gold",
    "Rejected",
    "developer_text",
    "extract_gold",
    "extract_golds",
    "match_results",
    "normalize_message",
    "normalize_result",
    "render_block",
    "shorten_reply",
    "tutorial",
]
