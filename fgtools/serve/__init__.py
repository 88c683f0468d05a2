"""Serve: a tuned model in somebody's application.

Knows prompts, replies and names; not training.
"""

from fgtools.serve.answer import Answer, answer_request, restore_calls

__all__ = [
    "Answer",
    "answer_request",
    "restore_calls",
]
