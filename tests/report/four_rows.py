"""Four rows, and replies to them: all right, or each wrong in its own way."""

TOOLS = [{"function": {"name": "one", "description": "", "parameters": {"properties": {"a": {"type": "string"}}}}}]
ROWS = [
    {
        "row_id": f"r{i}",
        "tools": TOOLS,
        "messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": f"ask <b>{i}</b>"}],
        "gold": [{"name": "one", "arguments": {"a": str(i)}}] if i < 3 else [],
    }
    for i in range(4)
]
RIGHT = [f"<start_function_call>call:one{{a:<escape>{i}<escape>}}<end_function_call>" for i in range(3)] + ["no"]
WRONG = ["no", RIGHT[0], RIGHT[2], RIGHT[0]]
