"""A Modelfile, with which Ollama takes a GGUF file.

Knows Ollama's Modelfile and which of its templates cannot be used. Ollama's own renderer of FunctionGemma's prompts
writes another text than training did, so the template here hands a prompt on as it is. Ollama itself was not run.
"""

from __future__ import annotations

from fgtools.calls.tokens import END_TURN, START_RESPONSE


def render_modelfile(file: str, max_new_tokens: int, n_ctx: int, licence: str = "") -> str:
    """Return the Modelfile of a GGUF file that lies beside it.

    Args:
        file: Name of the GGUF file.
        max_new_tokens: Budget of a reply, in tokens.
        n_ctx: Most tokens of a prompt and its reply.
        licence: What `ollama show --license` is to show; "" for nothing.
    """
    lines = [
        '# Prompts are sent as they are ("raw": true), without <bos>, which Ollama writes itself; calls are parsed by',
        "# fgtools.calls.parse_reply. Ollama's renderer of FunctionGemma's prompts loses enum, items and nested",
        "# properties of tools, and adds a sentence that training did not have.",
        f"FROM ./{file}",
        "TEMPLATE {{ .Prompt }}",
        "PARAMETER temperature 0",
        f"PARAMETER num_predict {max_new_tokens}",
        f"PARAMETER num_ctx {n_ctx}",
        *(f'PARAMETER stop "{token}"' for token in (START_RESPONSE, END_TURN)),
        *([f'LICENSE """{licence}"""'] if licence else []),
    ]
    return "\n".join(lines) + "\n"
