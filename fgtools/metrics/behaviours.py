"""What a reply does, in the four words of When2Call: call a tool, ask for what is missing, decline, or answer directly.

Knows texts; not rows or scores. Source of the four: When2Call (NVIDIA, 2025), where the model chooses among given
answers. Free replies are classified here by their wording, in English and Chinese, which is a heuristic: no rung of
the ladder depends on it. The rule, in its order, for a reply without a call:

1. silent: it holds no text.
2. request_for_info: a sentence asks for something ("could you tell", "please provide", "I need your"), or is a question
   with what, which, when, where, who or how. Offers of other help are left aside.
3. cannot_answer: it says that it cannot, could not or is unable; that it does not have, support, allow or cover
   something; that something is not available, possible or supported; that no or none of the tools does it; that it is
   outside or beyond what it does; or it is sorry, afraid or apologises.
4. request_for_info: it holds another question; else direct.

Texts are compared as `texts.normalize_text` writes them, so every apostrophe is one; "cant" and "dont" count as well.
"""

from __future__ import annotations

import re

from fgtools.metrics.texts import normalize_text

TOOL_CALL, REQUEST, DECLINE, DIRECT, SILENT = "tool_call", "request_for_info", "cannot_answer", "direct", "silent"

BEHAVIOURS = (TOOL_CALL, REQUEST, DECLINE, DIRECT, SILENT)
"""When2Call's four, and `silent` for a reply without text."""

_SENTENCE = re.compile(r"(?<=[.!?。！？\n])\s*")
_QUESTION_WORDS = re.compile(r"\b(?:what|which|when|where|who|how)\b", re.IGNORECASE)
_ASKS = re.compile(
    r"(?:could|can|would|will|may) (?:you|i) (?:please |kindly )?"
    r"(?:provide|tell|specify|share|give|clarify|confirm|let me know|have|know|ask)"
    r"|(?:please|kindly) (?:also )?(?:provide|tell|specify|share|give|clarify|confirm|let me know)"
    r"|(?:i|we)(?:'ll| will| would)? need (?:to know|more|some|a few|your|the|an?) "
    r"|请(?:问|提供|告诉|说明|给)|您能|你能|可以告诉|需要知道",
    re.IGNORECASE,
)
_DECLINES = re.compile(
    r"\b(?:can(?:no|')?t|can not|cannot|could(?:n'?t| not)|unable|not able|won'?t be able"
    r"|(?:not|isn'?t|aren'?t) (?:currently )?(?:possible|capable|available|equipped|supported)"
    r"|(?:do(?:es)?n'?t|do(?:es)? not) (?:currently |really )?(?:have|support|allow|match|provide|cover|include)"
    r"|no (?:such |suitable |available )?(?:tool|function)s?|none of (?:the|my|these)|outside (?:of )?(?:my|the)"
    r"|beyond my|sorry|unfortunately|i'?m afraid|i am afraid|apolog(?:y|ies|i[sz]e))\b"
    r"|抱歉|无法|不能|没有(?:能力|权限|办法|相关|合适)|没办法|对不起",
    re.IGNORECASE,
)
_OFFERS = re.compile(
    r"\b(?:anything else|something else|any other|what else|how (?:can|may) i (?:help|assist)"
    r"|would you like (?:me )?to)\b|还有|其他",
    re.IGNORECASE,
)
_READ = 4000
"""Characters of a text that are classified; a longer reply was not stopped by its model."""


def classify_behaviour(text: str, n_calls: int = 0) -> str:
    """Return what a reply does.

    Args:
        text: Its text outside calls.
        n_calls: Its calls; with one it is a tool call, whatever the text.

    Returns:
        One of BEHAVIOURS. An offer of other help does not count as a question; a question wins over a refusal, since
        "I cannot book without a date, which one?" asks.
    """
    if n_calls:
        return TOOL_CALL
    said = normalize_text(re.sub(r"<[a-z_]+>", " ", text[:_READ])).strip()
    if not said:
        return SILENT
    asked = [one for one in _SENTENCE.split(said) if not _OFFERS.search(one)]
    questions = [one for one in asked if one.endswith(("?", "？"))]
    if any(map(_ASKS.search, asked)) or any(map(_QUESTION_WORDS.search, questions)):
        return REQUEST
    if _DECLINES.search(said):
        return DECLINE
    return REQUEST if questions else DIRECT
