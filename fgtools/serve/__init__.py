"""Serve: a tuned model in somebody's application.

Knows prompts, replies and names; not training.
"""

from fgtools.serve.answer import Answer, answer_request

__all__ = [
    "Answer",
    "answer",
    "answer_request",
]
