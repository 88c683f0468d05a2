"""A Hugging Face hub of one's own on this machine: huggingface_hub's real client speaks to it over HTTP.

It knows the routes that publishing a model and loading it again take, as the client sends them: whoami-v2,
repos/create, models/ID (with its files), validate-yaml, preupload, the LFS batch, the upload of a file, the commit (one
JSON line an operation), tree and resolve. It keeps repositories in memory, counts requests by route, and fails if told:

    with HubServer({"hf_token": "you"}) as hub:
        hub.fail("commit", status=503, times=1)
        ...  # HF_ENDPOINT=hub.url, or huggingface_hub.constants.ENDPOINT
        hub.repositories["you/model"].files["README.md"]

Where hf_xet is installed the client sends large files through xet: the server takes them (its older routes, version 1),
but cannot read them, so that they are known by hash and size and cannot be loaded again. With HF_HUB_DISABLE_XET=1 (or
huggingface_hub.constants.HF_HUB_DISABLE_XET) they are sent by LFS, and can.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

READ_ONLY = "read only"
"""Added to a user's name, the token may not write."""


@dataclass
class Repository:
    """A repository: who sees it, its files, hash and size of those kept apart from git, and its commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    large: dict[str, tuple[str, int]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    messages: list[str] = field(default_factory=list)


CUT, SILENT = 0, -1
"""In place of an HTTP status: the connection is cut, or nothing is ever answered."""


@dataclass
class Fault:
    """How a route fails: with a status, CUT or SILENT; before or after what was asked is done."""

    status: int
    times: int
    body: str
    headers: dict[str, str]
    done: bool


class HubServer:
    """A hub for tokens and the names of their users; `url` is its address while it runs."""

    def __init__(self, users: dict[str, str]) -> None:
        self.users = users
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.xorbs: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, list[Fault]] = {}
        self.lock = threading.Lock()
        self.closed = threading.Event()

    def __enter__(self) -> HubServer:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

    def fail(
        self,
        route: str,
        status: int = CUT,
        times: int = 1_000,
        body: str = "",
        headers: dict[str, str] | None = None,
        done: bool = False,
    ) -> None:
        """Let a route fail a number of times.

        Args:
            route: Its name, as in `counts`.
            status: The HTTP status, CUT or SILENT.
            times: How often.
            body: What the answer says; "" for the client's own words.
            headers: Headers of the answer.
            done: Whether what was asked is done all the same, so that only the answer is lost.
        """
        self.faults.setdefault(route, []).append(Fault(status, times, body, headers or {}, done))


class _Cut(Exception):
    """The connection is to be closed without an answer."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for pattern, route in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in route.split()[1:]:
                name = route.split()[0]
                break
        else:
            return self._send(404, {"error": f"no route {self.command} {path}"})
        with self.hub.lock:
            self.hub.counts[name] += 1
            fault = next((one for one in self.hub.faults.get(name, []) if one.times > 0), None)
            if fault:
                fault.times -= 1
        if fault and fault.status == SILENT:
            self.hub.closed.wait()
            return self._cut()
        if fault and not fault.status and not fault.done:  # amid the body, before an answer
            self.rfile.read(min(1024, int(self.headers.get("Content-Length") or 0)))
            return self._cut()
        body = self._read_body()
        if fault and not fault.done:
            return self._send_text(fault.status, fault.body, fault.headers)
        with self.hub.lock:
            status, value, headers = getattr(self, f"_{name}")(body, *match.groups())
        if fault:
            return self._cut() if not fault.status else self._send_text(fault.status, fault.body, fault.headers)
        if isinstance(value, bytes):
            return self._send_bytes(status, value, headers)
        return self._send(status, value, headers)

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._send_bytes(status, data, {"Content-Type": "application/json", **(headers or {})})

    def _send_text(self, status: int, text: str, headers: dict[str, str]) -> None:
        self._send_bytes(status, text.encode(), {"Content-Type": "text/plain", **headers})

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # what each route does, with the body and the parts of its path; the answer: status, JSON or bytes, headers

    def _user(self) -> str:
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "), "")

    def _refuse(self, repo_id: str, writes: bool = True) -> tuple[int, Any, dict[str, str]] | None:
        """Return the answer to a request that is not allowed; None for one that is."""
        user = self._user()
        if not user and "Authorization" in self.headers:
            words = "Invalid credentials in Authorization header"
            return 401, {"error": words}, {"X-Error-Message": words}
        repository = self.hub.repositories.get(repo_id)
        owns = repo_id.split("/")[0] == user.removesuffix(READ_ONLY).strip()
        if repository is None or (repository.private and not owns):
            return (404 if user else 401), {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if writes and (not owns or user.endswith(READ_ONLY)):
            return 403, {"error": "You don't have the rights to write here"}, {}
        return None

    def _whoami(self, _: bytes) -> tuple[int, Any, dict[str, str]]:
        user = self._user()
        if not user:
            return 401, {"error": "Invalid credentials in Authorization header"}, {}
        role = "read" if user.endswith(READ_ONLY) else "write"
        name = user.removesuffix(READ_ONLY).strip()
        return 200, {"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"role": role}}}, {}

    def _create(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        user, asked = self._user(), json.loads(body)
        name = user.removesuffix(READ_ONLY).strip()
        repo_id = f"{asked.get('organization') or name}/{asked['name']}"
        if not user:
            return 401, {"error": "Invalid credentials in Authorization header"}, {}
        if user.endswith(READ_ONLY) or not repo_id.startswith(f"{name}/"):
            return 403, {"error": "You don't have the rights to create a model under this namespace"}, {}
        if repo_id in self.hub.repositories:
            return 409, {"error": "You already created this model repo"}, {}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[repo_id] = Repository(private)
        return 200, {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}, {}

    def _info(self, _: bytes, repo_id: str, revision: str | None) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id, writes=False):
            return refused
        repository = self.hub.repositories[repo_id]
        files = [{"rfilename": name, **_describe(repository, name)} for name in sorted(repository.files)]
        about = {"id": repo_id, "sha": repository.commits[-1], "private": repository.private, "tags": []}
        return 200, {**about, "siblings": files}, {}

    def _tree(self, _: bytes, repo_id: str) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id, writes=False):
            return refused
        files = self.hub.repositories[repo_id].files
        return (
            200,
            [{"type": "file", "path": name, "size": len(files[name]), "oid": _blob(files[name])} for name in files],
            {},
        )

    def _yaml(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if not json.loads(body)["content"].startswith("---"):
            return 400, {"errors": [{"message": '"license" must be one of the known ones'}], "warnings": []}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def _preupload(self, body: bytes, repo_id: str) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id):
            return refused
        repository, modes = self.hub.repositories[repo_id], []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith((".safetensors", ".png"))
            known, (oid, _) = repository.files.get(file["path"]), repository.large.get(file["path"], (None, 0))
            if known is not None and not oid:
                oid = _blob(known)
            mode = "lfs" if large else "regular"
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": modes}, {}

    def _batch(self, body: bytes, repo_id: str) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id):
            return refused
        objects, wanted = [], json.loads(body)
        if "xet" in wanted["transfers"]:  # older clients ask for it here, newer ones do not ask
            return 200, {"transfer": "xet", "objects": wanted["objects"]}, {}
        for asked in wanted["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}
            actions["verify"] = {"href": f"{self.hub.url}/verify/{repo_id}"}
            objects.append(asked if asked["oid"] in self.hub.objects else {**asked, "actions": actions})
        return 200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}

    def _put(self, body: bytes, oid: str) -> tuple[int, Any, dict[str, str]]:
        if _sha256(body) != oid:
            return 400, {"error": "the content has another sha256"}, {}
        self.hub.objects[oid] = body
        return 200, {}, {}

    def _verify(self, body: bytes, repo_id: str) -> tuple[int, Any, dict[str, str]]:
        asked = json.loads(body)
        arrived = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
        return (200, {}, {}) if arrived else (404, {"error": "the object is not there"}, {})

    def _commit(self, body: bytes, repo_id: str) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id):
            return refused
        repository = self.hub.repositories[repo_id]
        header, *operations = [json.loads(line) for line in body.splitlines()]
        parent = header["value"].get("parentCommit")
        if parent and parent != repository.commits[-1]:
            return 412, {"error": "A commit has happened since. Please refresh and try again."}, {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del repository.files[value["path"]]
                repository.large.pop(value["path"], None)
            elif operation["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert operation["key"] == "lfsFile"
                assert value["oid"] in self.hub.objects or self.hub.xorbs
                repository.files[value["path"]] = self.hub.objects.get(value["oid"], b"")
                repository.large[value["path"]] = value["oid"], value["size"]
        repository.commits.append(hashlib.sha1(body).hexdigest())
        repository.messages.append(header["value"]["summary"])
        commit = repository.commits[-1]
        return 200, {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{commit}", "commitOid": commit}, {}

    def _xet(self, _: bytes, repo_id: str) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id):
            return refused
        end = int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": self.hub.url, "X-Xet-Access-Token": "of xet", "X-Xet-Token-Expiration": str(end)}
        return 200, {"casUrl": self.hub.url, "exp": end, "accessToken": "of xet"}, headers

    def _chunks(self, _: bytes) -> tuple[int, Any, dict[str, str]]:
        return 404, {}, {}

    def _xorb(self, body: bytes, key: str) -> tuple[int, Any, dict[str, str]]:
        self.hub.xorbs[key] = body
        return 200, {"was_inserted": True}, {}

    def _shard(self, _: bytes) -> tuple[int, Any, dict[str, str]]:
        return 200, {"result": 1}, {}

    def _resolve(self, _: bytes, repo_id: str, name: str) -> tuple[int, Any, dict[str, str]]:
        if refused := self._refuse(repo_id, writes=False):
            return refused
        repository = self.hub.repositories[repo_id]
        if name not in repository.files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        data = repository.files[name]
        headers = {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": repository.commits[-1]}
        return 200, data, {**headers, "Content-Type": "application/octet-stream"}


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("/api/whoami-v2", "whoami GET"),
    ("/api/repos/create", "create POST"),
    ("/api/validate-yaml", "yaml POST"),
    (rf"/api/models/{_ID}(?:/revision/(.+))?", "info GET"),
    (rf"/api/models/{_ID}/tree/.+", "tree GET"),
    (rf"/api/models/{_ID}/preupload/main", "preupload POST"),
    (rf"/api/models/{_ID}/commit/main", "commit POST"),
    (rf"/{_ID}\.git/info/lfs/objects/batch", "batch POST"),
    ("/lfs/([0-9a-f]{64})", "put PUT"),
    (rf"/verify/{_ID}", "verify POST"),
    (rf"/api/models/{_ID}/xet-write-token/main", "xet GET"),
    ("/v1/chunks/.+", "chunks GET"),
    ("/v1/xorbs/default/([0-9a-f]{64})", "xorb POST"),
    ("/v1/shards", "shard POST"),
    (rf"/{_ID}/resolve/[^/]+/(.+)", "resolve GET HEAD"),
)
"""Patterns of paths, and the name of the route with its methods."""


def _describe(repository: Repository, name: str) -> dict[str, Any]:
    data = repository.files[name]
    if name not in repository.large:
        return {"size": len(data), "blobId": _blob(data)}
    oid, size = repository.large[name]
    return {"size": size, "blobId": "0" * 40, "lfs": {"sha256": oid, "size": size, "pointerSize": 134}}


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
