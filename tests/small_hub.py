"""A small Hugging Face Hub on this machine: repositories in memory, or one answer to everything."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


@dataclass(slots=True)
class SmallHub:
    """What it holds. `status` answers every request with that instead; `broken` refuses commits.

    `history` has the former contents of files, until it is squashed.
    """

    url: str = ""
    status: int | None = None
    broken: bool = False
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    history: list[bytes] = field(default_factory=list)


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    hub = SmallHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, body: Any = None, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if hub.status is not None:
                self.answer(hub.status, {"error": "no"})
                return
            path = self.path.partition("?")[0]
            parts = path.strip("/").removeprefix("datasets/").split("/")
            if path == "/api/repos/create":
                self.create(json.loads(body))
            elif path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif path == "/api/repos/delete":
                asked = json.loads(body)
                hub.repos.pop(f"{asked.get('organization')}/{asked['name']}", None)
                self.answer(200)
            elif parts[0] == "api" and "preupload" in parts:
                files = json.loads(body)["files"]
                kinds = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                self.answer(200, {"files": kinds})
            elif parts[0] == "api" and "commit" in parts:
                self.commit("/".join(parts[2:4]), body)
            elif parts[0] == "api" and "super-squash" in parts:
                hub.history.clear()
                self.answer(200)
            elif parts[0] == "api" and "/".join(parts[2:4]) in hub.repos:
                held = hub.repos["/".join(parts[2:4])]
                siblings = [{"rfilename": name, "size": len(data)} for name, data in held.items()]
                if "tree" in parts:
                    tree = [
                        {"type": "file", "path": name, "size": len(d), "oid": sha1(d).hexdigest()}
                        for name, d in held.items()
                    ]
                    self.answer(200, tree)
                else:
                    name = "/".join(parts[2:4])
                    facts = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": hub.private[name]}
                    self.answer(200, facts)
            elif len(parts) > 4 and parts[2] == "resolve" and "/".join(parts[:2]) in hub.repos:
                data = hub.repos["/".join(parts[:2])].get("/".join(parts[4:]))
                if data is None:
                    self.answer(404, X_Error_Code="EntryNotFound")
                else:
                    self.answer(200, data, ETag=f'"{sha1(data).hexdigest()}"', X_Repo_Commit=COMMIT)
            else:
                self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked.get('organization')}/{asked['name']}"
            if name in hub.repos:
                self.answer(409, {"error": "You already created this repo", "url": f"{hub.url}/{name}"})
                return
            hub.repos[name] = {}
            hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.answer(200, {"url": f"{hub.url}/{name}"})

        def commit(self, name: str, body: bytes) -> None:
            if hub.broken:
                self.answer(400, {"error": "no room"})
                return
            for line in body.decode().splitlines():
                said = json.loads(line)
                if said["key"] in ("file", "deletedFile"):
                    hub.history.append(hub.repos[name].pop(said["value"]["path"], b""))
                if said["key"] == "file":
                    hub.repos[name][said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            url = f"{hub.url}/{name}/commit/{COMMIT}"
            self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

        do_GET = do_POST = do_HEAD = do_DELETE = do_PUT = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
