"""One text written in two ways: what scoring and the search for duplicates take for the same.

Knows characters; not requests, arguments or replies.
"""

from __future__ import annotations

import unicodedata

_APOSTROPHES = "\u0060\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201a\u201b\u2032\u2035\ua78c\uff07"
_QUOTES = "\u02ba\u201c\u201d\u201e\u201f\u2033\u2036\u301d\u301e\u301f\uff02"
_PLAIN = str.maketrans(dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_QUOTES, '"'))


def normalize_text(text: str) -> str:
    """Return a text with one spelling for each character.

    Every apostrophe and single quotation mark becomes "'", every double one '"'. Then Unicode's form NFKC: letters and
    their accents joined (as NFC does), no-break and other spaces a space, full-width letters and digits plain ones.
    Apostrophes come first, since NFKC takes the acute accent that stands for one apart.
    """
    if text.isascii() and "`" not in text:
        return text
    return unicodedata.normalize("NFKC", text.translate(_PLAIN))


def normalize_request(text: str) -> str:
    """Return a request as two of them are compared: normalize_text, without case and repeated white space."""
    return " ".join(normalize_text(text).casefold().split())
