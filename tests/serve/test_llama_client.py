"""llama.cpp as a client meets it: an OpenAI client, the stand-in as a GGUF file, a tool's result sent back."""

import json
import re
from pathlib import Path

import pytest

from fgtools.calls import ToolCall, parse_reply
from fgtools.models import load_tokenizer
from fgtools.offline import CHECKPOINT
from fgtools.prompts import render_prompt
from fgtools.schema import load_tools
from fgtools.serve import llama, load_caller
from fgtools.serve.gguf import write_gguf
from fgtools.serve.llama import LlamaServer
from tests.serve.conftest import EXAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
openai = pytest.importorskip("openai")

TOOL = {
    "type": "function",
    "function": {
        "name": "alarm_set",
        "description": "Set an alarm.",
        "parameters": {
            "type": "object",
            "properties": {"time": {"type": "string", "description": "When it rings."}},
            "required": ["time"],
        },
    },
}
REQUESTS = ("wake me at 13:10", "set an alarm for 7:30 please", "alarm at 20:15")
HOME = load_tools(EXAMPLES / "home_tools.py")
LIGHTS = ("set the light in the office to 60", "set the light in the hall to 15", "set the light in the garden to 40")
"""What the tuned stand-in has learnt to answer: the server is tested here, and not how good a model is."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_gguf(CHECKPOINT, tmp_path_factory.mktemp("gguf") / "model-f16.gguf", "f16").path


@pytest.fixture(scope="module")
def tuned_server(tuned, tmp_path_factory):
    """A server of the tuned stand-in as a GGUF file."""
    with LlamaServer(
        write_gguf(tuned, tmp_path_factory.mktemp("tuned") / "model-f16.gguf", "f16").path, 1024
    ) as server:
        yield server


def chat(request):
    developer = {
        "role": "developer",
        "content": "You are a model that can do function calling with the following functions",
    }
    return [developer, {"role": "user", "content": request}]


def test_a_chat_completion_holds_the_call_as_text_with_its_marks(tuned, tuned_server):
    client, tokenizer = openai.OpenAI(base_url=f"{tuned_server.address}/v1", api_key="none"), load_tokenizer(tuned)
    for request in LIGHTS:
        how = {"model": "tuned", "tools": HOME, "max_tokens": 64, "temperature": 0}
        done = client.chat.completions.create(messages=chat(request), **how)
        choice = done.choices[0]
        assert choice.message.tool_calls is None and choice.finish_reason == "stop"
        (call,) = parse_reply(choice.message.content).calls
        assert call.name == "set_light" and sorted(call.arguments) == ["level", "room"]
        prompt = tokenizer(render_prompt(chat(request), HOME, tokenizer), add_special_tokens=False)
        assert done.usage.prompt_tokens == len(prompt["input_ids"])


def test_the_chat_endpoint_goes_on_after_a_call_with_the_prompt_of_training(file, tokenizer):
    named = {"name": "alarm_set", "arguments": json.dumps({"time": "7:30"})}
    call = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": named}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "done"}  # OpenAI's protocol gives it no name
    taught = {"role": "assistant", "tool_calls": [{"function": {"name": "alarm_set", "arguments": {"time": "7:30"}}}]}
    ours = render_prompt([*chat(REQUESTS[0]), taught, {**result, "name": "alarm_set"}], [TOOL], tokenizer)
    with LlamaServer(file, 1024) as server:
        body = {"messages": [*chat(REQUESTS[0]), call, result], "tools": [TOOL]}
        assert server._post("/apply-template", body)["prompt"] == ours.removeprefix("<bos>")


def test_with_its_own_parser_llama_cpp_refuses_the_calls(file, monkeypatch):
    switch = "params.force_pure_content_parser = True"
    assert switch in llama._SERVE
    monkeypatch.setattr(llama, "_SERVE", llama._SERVE.replace(switch, ""))
    with LlamaServer(file, 1024) as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
        how = {"model": "standin", "tools": [TOOL], "max_tokens": 64, "temperature": 0}
        with pytest.raises(openai.InternalServerError, match="peg-native"):  # of xllamacpp 2026.10.11549
            client.chat.completions.create(messages=chat(REQUESTS[0]), **how)


def test_three_requests_through_completions_are_answered_as_in_transformers(tuned, tuned_server):
    ours = load_caller(tuned, HOME, max_new_tokens=64, quiet=True)
    client = openai.OpenAI(base_url=f"{tuned_server.address}/v1", api_key="none")

    def ask(prompt):
        how = {"model": "tuned", "max_tokens": 64, "temperature": 0}
        return client.completions.create(prompt=prompt.removeprefix("<bos>"), **how).choices[0].text

    for request in LIGHTS:
        answer = ours.call(request)
        theirs = ours.parse(ask(ours.prompt(request)))
        assert [*theirs.calls] == [ToolCall(call.name, call.arguments) for call in answer.calls] != []
        final = ours.respond(answer.calls[0], {"room": "office", "level": 60})
        result = {"role": "tool", "name": answer.calls[0].name, "content": {"room": "office", "level": 60}}
        text = ask(ours.prompt([{"role": "user", "content": request}, *theirs.messages, result]))
        assert ours.parse(text).text == final.text


def test_the_lines_of_the_page_run(file, monkeypatch, capsys):
    section = PAGE.read_text(encoding="utf-8").partition("## llama.cpp")[2].partition("\n## ")[0]
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    lines = lines.replace('"runs/mine/model"', '"standin"').replace("runs/mine/export/model-f16.gguf", str(file))
    names = {}
    exec(lines, names)
    assert names["first"].calls[0].name == "alarm_set" and "time" in names["first"].calls[0].arguments
    assert names["results"][0]["content"]["status"] == "set" and names["last"].reply


@pytest.mark.parametrize(
    ("request_text", "arguments", "result", "words"),
    [
        (
            "wake me every day at 07:15",
            {"time": "07:15", "type": "daily"},  # the template hides this name
            {"alarm": 1, "time": "07:15"},
            "The alarm is set for 07:15.",
        ),
        (
            "set the light in the office to 60",
            {"room": "office", "level": 60},
            {"room": "office", "level": 60},
            "The light in the office is on.",
        ),
        ("list my alarms", {}, [], "No alarm is set."),
    ],
)
def test_a_tuned_model_calls_and_says_the_last_words(tuned, tuned_server, request_text, arguments, result, words):
    caller = load_caller(tuned, weights=False, quiet=True)
    client = openai.OpenAI(base_url=f"{tuned_server.address}/v1", api_key="none")

    def ask(messages):
        how = {"model": "tuned", "max_tokens": 64, "temperature": 0}
        prompt = caller.prompt(messages).removeprefix("<bos>")
        return caller.parse(client.completions.create(prompt=prompt, **how).choices[0].text)

    answer = ask(request_text)
    (call,) = answer.calls
    assert call.arguments == arguments
    given = {"role": "tool", "name": call.name, "content": result}
    assert ask([{"role": "user", "content": request_text}, *answer.messages, given]).text == words
