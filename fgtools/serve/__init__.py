"""Serve: a tuned model in somebody's application.

Knows what a model was taught, prompts, replies and names; not training, and no tool's code.
"""

from fgtools.serve.answer import Answer
from fgtools.serve.app_tools import restore_calls
from fgtools.serve.caller import ToolCaller, answer_request, load_caller
from fgtools.serve.taught import TaughtTools, load_taught_tools, write_taught_tools

__all__ = [
    "Answer",
    "TaughtTools",
    "ToolCaller",
    "answer",
    "answer_request",
    "gguf",
    "llama",
    "load_caller",
    "load_taught_tools",
    "ollama",
    "restore_calls",
    "taught",
    "usage",
    "vocabulary",
    "write_taught_tools",
]
