"""A saved model behind `transformers serve`, as an application meets it: an OpenAI client, tools, a tool's result."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from fgtools.calls import ToolCall, parse_reply, render_calls
from fgtools.models import load_tokenizer, save_model
from fgtools.serve import load_caller
from tests.toys import fresh_model

openai = pytest.importorskip("openai", reason="needs openai: pip install 'fgtools[serving]'")
for needed in ("fastapi", "uvicorn", "transformers.utils.chat_parsing"):
    pytest.importorskip(needed, reason="needs what transformers serve needs: pip install 'fgtools[serving]'")

REQUESTS = ("List the events of monday", "List the events of friday, 3 at most", "play the song winter")
TOOLS = [
    {
        "name": "events_list",
        "description": "List the events of a day.",
        "parameters": {
            "type": "object",
            "properties": {"day": {"type": "string"}, "limit": {"type": "integer"}, "type": {"type": "string"}},
            "required": ["day"],
        },
    },
    {
        "name": "song_play",
        "description": "Play a song.",
        "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
    },
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(fresh_model(), load_tokenizer("standin"), tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def caller(folder):
    return load_caller(folder, TOOLS, max_new_tokens=48, quiet=True)


@pytest.fixture(scope="module")
def client(folder):
    with serve(folder) as opened:
        yield opened


@contextmanager
def serve(folder):
    """Run `transformers serve` on a folder, and give an OpenAI client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = folder.with_name("server.log")
    with log.open("w") as file:
        settings = {"env": {**os.environ, "HF_HUB_OFFLINE": "1"}, "stdout": file, "stderr": file}
        server = subprocess.Popen([*command, *options], **settings)
    try:
        for _ in range(14400):  # an hour: a busy machine is slow
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, log.read_text()
            time.sleep(0.25)
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=3600)
    finally:
        server.terminate()
        server.wait(3600)


def start(caller, request):
    return [{"role": "developer", "content": caller.taught.developer}, {"role": "user", "content": request}]


def ask(client, folder, caller, messages, **options):
    options = {"temperature": 0, "max_completion_tokens": 48, **options}
    return client.chat.completions.create(model=str(folder), messages=messages, tools=list(caller.tools), **options)


def to_calls(tool_calls):
    return [ToolCall(one.function.name, json.loads(one.function.arguments)) for one in tool_calls or []]


def test_three_requests_give_the_calls_of_the_caller_streamed_or_not(client, folder, caller):
    assert "type_" in caller.tools[0]["function"]["parameters"]["properties"], "the tools must be those as taught"
    n_calls = 0
    for request in REQUESTS:
        expected = caller.call(request)
        served = ask(client, folder, caller, start(caller, request)).choices[0]
        calls = to_calls(served.message.tool_calls)
        assert calls == list(parse_reply(expected.reply).calls)
        assert caller.parse(render_calls(calls)).calls == expected.calls  # the application's own names again
        assert served.finish_reason == ("tool_calls" if calls else "stop")
        pieces = [piece.choices[0] for piece in ask(client, folder, caller, start(caller, request), stream=True)]
        streamed = [one for piece in pieces for one in piece.delta.tool_calls or []]
        assert to_calls(streamed) == calls and pieces[-1].finish_reason == served.finish_reason
        text = "".join(piece.delta.content or "" for piece in pieces)
        assert text.strip() == (served.message.content or "").strip() == expected.text
        n_calls += len(calls)
    assert n_calls >= 2


def test_a_tools_result_is_sent_back_and_answered(client, folder, caller):
    messages = start(caller, REQUESTS[0])
    reply = ask(client, folder, caller, messages).choices[0].message
    call = reply.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "a concert at 8"}
    final = ask(client, folder, caller, [*messages, reply.model_dump(exclude_none=True), result])
    own = {"role": "tool", "name": call.function.name, "content": "a concert at 8"}
    arguments = json.loads(call.function.arguments)
    called = {"role": "assistant", "tool_calls": [{"function": {"name": call.function.name, "arguments": arguments}}]}
    tools, template = [dict(tool) for tool in caller.tools], caller.tokenizer.apply_chat_template
    prompt = template([*messages, called, own], tools=tools, add_generation_prompt=True, return_dict=True)
    assert final.usage.prompt_tokens == len(prompt["input_ids"])
    assert final.choices[0].message.content is not None and "response:" not in final.choices[0].message.content


def test_a_tuned_model_calls_and_says_the_last_words(tuned):
    """The rows of this model go on to the words after a result, and one of its parameters is hidden by the template.

    The results are JSON objects, which the chat endpoint shows as text; the prompt of training shows them as they are.
    """
    caller = load_caller(tuned, quiet=True)
    spoken = (
        ("wake me every day at 07:15", {"time": "07:15", "type": "daily"}, "The alarm is set for 07:15."),
        ("set the light in the office to 60", {"room": "office", "level": 60}, "The light in the office is on."),
        ("list my alarms", {}, "No alarm is set."),
    )
    results = {"set_alarm": {"alarm": 1, "time": "07:15"}, "set_light": {"room": "office", "level": 60}}
    with serve(tuned) as client:
        for request, arguments, words in spoken:
            reply = ask(client, tuned, caller, start(caller, request)).choices[0].message
            answer = caller.parse(render_calls(to_calls(reply.tool_calls)))
            (call,) = answer.calls
            assert call.arguments == arguments
            result = {"role": "tool", "name": call.name, "content": results.get(call.name, [])}
            prompt = caller.prompt([{"role": "user", "content": request}, *answer.messages, result])
            how = {"prompt": prompt.removeprefix("<bos>"), "temperature": 0, "max_tokens": 48}
            final = client.completions.create(model=str(tuned), **how).choices[0].text
            assert caller.parse(final).text == words


def test_the_rendered_prompt_by_the_completions_endpoint_gives_the_callers_answers(client, folder, caller):
    for request in REQUESTS[:2]:
        expected = caller.call(request)
        prompt = caller.prompt(request).removeprefix("<bos>")  # the server's tokenizer adds it
        served = client.completions.create(model=str(folder), prompt=prompt, temperature=0, max_tokens=48)
        assert served.usage.prompt_tokens == len(caller.tokenizer(prompt)["input_ids"])
        answer = caller.parse(served.choices[0].text)
        assert answer.calls == expected.calls and answer.problems == expected.problems


def test_the_lines_of_the_page_run(client, folder):
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    section = page.partition("\n## transformers\n")[2].partition("\n## ")[0]
    lines = "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    for shown, here in (("runs/mine/model", str(folder)), ("http://localhost:8000/v1", str(client.base_url))):
        assert shown in lines
        lines = lines.replace(shown, here)
    names = {}
    exec(compile(lines, "the page", "exec"), names)
    assert names["message"]["tool_calls"][0]["function"]["arguments"] == {"time": "06:30", "loud": True}
    assert [one["role"] for one in names["messages"]] == ["developer", "user", "assistant", "tool"]
    assert json.loads(names["messages"][-1]["content"])["status"] == "set" and names["final"].role == "assistant"
    assert names["answer"].calls[0].name == "alarm_set"
