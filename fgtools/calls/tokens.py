"""The control tokens of FunctionGemma's format: their texts, and their ids in FunctionGemma's vocabulary."""

import re

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
START_TURN, END_TURN = "<start_of_turn>", "<end_of_turn>"
START_DECLARATION, END_DECLARATION = "<start_function_declaration>", "<end_function_declaration>"
START_CALL, END_CALL = "<start_function_call>", "<end_function_call>"
START_RESPONSE, END_RESPONSE = "<start_function_response>", "<end_function_response>"
ESCAPE = "<escape>"

STOP_TOKENS = (EOS, START_RESPONSE, END_TURN)
"""What ends a reply: FunctionGemma emits <start_function_response> after its calls, <end_of_turn> after prose (ids 1,
50, 106)."""

CONTROL_IDS = {
    **{PAD: 0, EOS: 1, BOS: 2, "<unk>": 3, START_DECLARATION: 46, END_DECLARATION: 47, START_CALL: 48, END_CALL: 49},
    **{START_RESPONSE: 50, END_RESPONSE: 51, ESCAPE: 52, START_TURN: 105, END_TURN: 106},
}
"""The ids of text's control tokens in FunctionGemma's vocabulary, by its published tokenizer_config.json."""

CONTROL_TOKENS = (
    *(PAD, EOS, BOS, "<unk>", START_DECLARATION, END_DECLARATION, START_CALL, END_CALL, START_RESPONSE, END_RESPONSE),
    *(ESCAPE, START_TURN, END_TURN, "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
"""The text of every control token of the format; none of them may come from a user's text."""

CONTROL_TOKEN = re.compile("|".join(re.escape(token) for token in CONTROL_TOKENS))
"""Matches any control token."""

OTHER_TOKENS = ("<mask>", "[multimodal]", "<start_receiver>", "<end_receiver>")
"""More tokens of Gemma 3's vocabulary that stand for no text, beside 6,234 named <unused0>, <unused1>, ... Those for
runs of line breaks, runs of spaces and HTML tags do stand for text."""

SPECIAL_TOKEN = re.compile(
    f"<(?:{'|'.join(token[1:-1] for token in (*CONTROL_TOKENS, *OTHER_TOKENS) if token[0] == '<')}|unused[0-9]+)>"
    r"|\[multimodal\]"
)
"""Matches any token that must not come from data: the control tokens and the others that stand for no text."""
