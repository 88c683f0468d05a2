"""Prompts: rows to token ids and labels, what a chat template hides, and the audit before training.

Knows tokenizers and templates; not weights or trainers.
"""

from fgtools.prompts.audit import Audit, audit_rows
from fgtools.prompts.batch import EncodedRows, encode_rows
from fgtools.prompts.checks import Check
from fgtools.prompts.encode import IGNORED, Encoded, TooLong, encode_row, render_prompt
from fgtools.prompts.template import probe_template

__all__ = [
    "IGNORED",
    "Audit",
    "Check",
    "Encoded",
    "EncodedRows",
    "TooLong",
    "audit",
    "audit_rows",
    "batch",
    "encode",
    "encode_row",
    "encode_rows",
    "golden",
    "messages",
    "probe_template",
    "render_prompt",
    "template",
]
