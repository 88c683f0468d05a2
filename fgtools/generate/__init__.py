"""Generate: a model's replies to many rows at once, saved as they come, constrained on request.

Knows models and prompts; not gold or scores.
"""

from fgtools.generate.replies import generate_replies

__all__ = [
    "constrained",
    "generate_replies",
    "replies",
    "reply_log",
]
