"""The error of this room.

Knows nothing else.
"""

from fgtools.files import FgtoolsError


class ModelError(FgtoolsError, ValueError):
    """A model or tokenizer cannot be loaded or does not fit the format; the message says what to do."""
