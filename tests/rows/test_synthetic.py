"""Requests by a model behind an address: asked for, checked, counted; the key is in no message, nothing is lost."""

import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fgtools.__main__ import main
from fgtools.files import InputError
from fgtools.rows.drafts import build_draft
from fgtools.rows.endpoint import ATTEMPTS, Endpoint, EndpointError
from fgtools.rows.synthetic import Written, write_requests
from fgtools.schema import normalize_tools

TOOLS = normalize_tools(
    [
        {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
                "required": ["city"],
            },
        }
    ]
)
COUNT = itertools.count()
KEY = "sk-secret-0123456789"


def fill(value, n):
    """Put a city in place of the placeholder."""
    return json.loads(json.dumps(value).replace("<city>", f"City {n}"))


def good_answer(messages, wordings=2):
    """Answer as a model that does what it is asked."""
    text = messages[-1]["content"]
    asked = json.loads(text[text.rindex("\n") + 1 :])
    if "write" in asked[0]:
        return json.dumps([{"number": one["number"], "request": f"{one['write']}!"} for one in asked])
    items = [
        {"number": one["number"], "request": f"Ask {n} {one['arguments']}", "arguments": fill(one["arguments"], n)}
        for one in asked
        for n in range(wordings)
    ]
    return f"Here you are:\n```json\n{json.dumps(items)}\n```"


class Model:
    """A model that gives prepared answers."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def ask(self, messages):
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer(messages) if callable(answer) else answer


def test_every_request_is_checked_and_marked():
    lines = build_draft(TOOLS, 3, 2)
    written = write_requests(lines, TOOLS, Model(good_answer, good_answer), Written())
    calls = [line for line in written.lines if line.call]
    assert all(line.synthetic and line.request for line in written.lines)
    assert all("<city>" not in json.dumps(line.call.arguments) for line in calls)
    assert {line.call.arguments.get("unit") for line in calls} == {None, "c", "f"}
    assert {(line.to_dict()["source"], line.to_dict()["synthetic"]) for line in written.lines} == {
        ("synthetic", "true")
    }
    assert written.counts == {"kept": len(written.lines)} and len(calls) == 2 * sum(bool(line.call) for line in lines)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"number": 0, "request": "In Oslo?", "arguments": {"city": "<city>"}}, "placeholder"),
        ({"number": 0, "request": "In Oslo?", "arguments": {"city": 5}}, "changed_call"),
        ({"number": 0, "request": "In Oslo?", "arguments": {"city": ""}}, "changed_call"),
        ({"number": 0, "request": "In Oslo?", "arguments": {"city": "Oslo", "unit": "c"}}, "changed_call"),
        ({"number": 0, "request": "In Oslo?"}, "unreadable"),
        ({"number": 7, "request": "In Oslo?", "arguments": {"city": "Oslo"}}, "unreadable"),
        ({"number": True, "request": "In Oslo?", "arguments": {"city": "Oslo"}}, "unreadable"),
        ({"number": 0, "request": " ", "arguments": {"city": "Oslo"}}, "bad_request"),
        ({"number": 0, "request": "x" * 3000, "arguments": {"city": "Oslo"}}, "bad_request"),
        ("text", "unreadable"),
    ],
)
def test_what_does_not_pass_is_counted_and_its_line_stays_empty(item, reason):
    lines = build_draft(TOOLS, 1, 0)
    written = write_requests(lines, TOOLS, Model(json.dumps([item])), Written())
    assert written.counts == {reason: 1} and written.lines == lines


def test_a_request_is_kept_once():
    item = {"number": 0, "request": "In Oslo?", "arguments": {"city": "Oslo"}}
    answer = json.dumps([item, {**item, "request": " in  OSLO"}])
    written = write_requests(build_draft(TOOLS, 1, 0)[:1], TOOLS, Model(answer), Written())
    assert written.counts == {"kept": 1, "duplicate": 1} and len(written.lines) == 1


def test_an_error_keeps_what_was_received():
    lines, written = build_draft(TOOLS, 3, 2), Written()
    with pytest.raises(EndpointError):
        write_requests(lines, TOOLS, Model(good_answer, EndpointError("away")), written)
    assert sum(line.synthetic for line in written.lines) == 6
    assert [line.note for line in written.lines if not line.request] == [line.note for line in lines if not line.call]


@pytest.fixture
def server():
    """An address that answers as its list of (status, body or function) says, and notes what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            http.asked.append((self.path, self.headers.get("Authorization"), body))
            status, answer = http.answers.pop(0) if len(http.answers) > 1 else http.answers[0]
            text = answer(body) if callable(answer) else answer
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.asked, http.answers = [], []
    http.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


def completion(body):
    text = re.sub('"request": "', lambda match: f"{match[0]}{next(COUNT)} ", good_answer(body["messages"]))
    return json.dumps({"choices": [{"message": {"content": text}}]})


def endpoint(server):
    return Endpoint(server.url, "small", pause=0)


def test_a_busy_server_is_asked_again(server, monkeypatch):
    monkeypatch.setenv("FGTOOLS_API_KEY", KEY)
    server.answers = [(503, "busy"), (429, "slow down"), (200, '{"choices": [{"message": {"content": "hi"}}]}')]
    assert endpoint(server).ask([{"role": "user", "content": "hi"}]) == "hi"
    path, key, body = server.asked[-1]
    assert (path, key, body["model"]) == ("/v1/chat/completions", f"Bearer {KEY}", "small") and len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "body", "asked", "message"),
    [
        (401, f"wrong key {KEY}", 1, r"HTTP 401.*wrong key \*\*\*.*set the key in the environment"),
        (404, "no such model", 1, "HTTP 404.*no such model.*the model's name"),
        (302, "", 1, "HTTP 302.*sends to another address"),
        (500, "broken", ATTEMPTS, f"no answer in {ATTEMPTS} tries .HTTP 500"),
        (200, f"<html>{KEY}", 1, r"must answer with a chat completion, got '<html>\*\*\*'"),
        (200, '{"choices": []}', 1, "must answer with a chat completion"),
    ],
)
def test_errors_say_what_to_do_and_never_show_the_key(server, monkeypatch, status, body, asked, message):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("FGTOOLS_API_KEY", raising=False)
    server.answers = [(status, body)]
    with pytest.raises(EndpointError, match=message) as caught:
        endpoint(server).ask([])
    assert KEY not in str(caught.value) and len(server.asked) == asked


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(EndpointError, match=r"http://127\.0\.0\.1:1/v1 gave no answer"):
        Endpoint("http://user:pass@127.0.0.1:1/v1?token=x", "m", pause=0).ask([])


@pytest.mark.parametrize(("url", "model"), [("file:///etc/passwd", "m"), ("localhost:8000", "m"), ("http://x/v1", "")])
def test_an_address_that_is_none_is_refused(url, model):
    with pytest.raises(InputError, match=r"must be an address|needs the name of a model"):
        Endpoint(url, model)


def test_the_command_writes_a_sheet_that_prepare_takes(server, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FGTOOLS_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    server.answers = [(200, completion)]
    sheet, tools = str(tmp_path / "examples.csv"), str(tmp_path / "tools.json")
    draft = ["draft", "--tools", tools, "--out", sheet, "--endpoint", server.url, "--model", "small"]
    assert main(draft) == 0 and "requests by a model: " in capsys.readouterr().out
    assert server.asked[0][1] is None
    assert main(draft) == 1 and "must be a new file" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main(["prepare", "--data", sheet, "--tools", tools, "--out", str(out), "--n-eval", "2"]) == 0
    funnel = json.loads((out / "funnel.json").read_text())
    assert funnel["by_source"] == {"synthetic": {"kept": funnel["rows_in"]}}


def test_the_command_keeps_what_it_received_before_an_error(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fgtools.rows.endpoint.time.sleep", lambda _: None)
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    server.answers = [(200, completion), (400, "enough")]
    sheet = tmp_path / "examples.csv"
    draft = ["draft", "--tools", str(tmp_path / "tools.json"), "--out", str(sheet)]
    assert main([*draft, "--endpoint", server.url, "--model", "small", "--per-tool", "9"]) == 1
    assert "HTTP 400" in capsys.readouterr().err
    assert len(re.findall("synthetic,true", sheet.read_text())) > 3 and ",written," in sheet.read_text()
