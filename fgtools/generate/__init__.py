"""Generate: a model's replies to many rows at once, how sure it was of them, constrained on request.

Knows models and prompts; not gold, or whether a reply is right.
"""

from fgtools.generate.replies import generate_replies, generate_with_confidence

__all__ = [
    "constrained",
    "generate_replies",
    "generate_with_confidence",
    "replies",
    "reply_log",
]
