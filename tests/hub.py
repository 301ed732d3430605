"""A stand-in of the Hugging Face Hub here: what `huggingface_hub` asks of it, and what may go wrong there."""

import base64
import hashlib
import http.server
import json
import re
import threading
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_owner"


class Hub:
    """Repositories as the Hub keeps them: commits with files, and branches and tags that name a commit.

    Attributes:
        breaks: bytes after which a download breaks off, one for each of the next downloads of weights
        requests: of all that was asked, method and path
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.large: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str, files: dict[str, bytes], *, private: bool = False, tag: str | None = None) -> str:
        """Adds a commit to a repository, which is made if it is new, and gives its number."""
        repository = self.repositories.setdefault(name, {"private": private, "commits": {}, "refs": {}})
        parent = repository["refs"].get("main")
        whole = {**repository["commits"].get(parent, {}), **files}
        sha = hashlib.sha1(f"{parent}{sorted(whole)}{len(repository['commits'])}".encode()).hexdigest()
        repository["commits"][sha] = whole
        repository["refs"]["main"] = sha
        if tag is not None:
            repository["refs"][tag] = sha
        return sha

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a commit."""
        repository = self.repositories[name]
        return repository["commits"][repository["refs"].get(revision, revision)]


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    # --- answers ---

    def reply(self, status: int, value: Any = None, **headers: str) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, {"error": code}, X_Error_Code=code)

    @property
    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def repository(self, name: str) -> dict[str, Any] | None:
        """The repository, or None after its absence was told: as on the Hub, a private one is absent for others."""
        found = self.hub.repositories.get(name)
        if found is None or found["private"] and not self.authorized:
            self.refuse(404 if self.authorized else 401, "RepoNotFound")
            return None
        return found

    def revision(self, found: dict[str, Any], name: str) -> str | None:
        sha = found["refs"].get(name, name)
        if sha not in found["commits"]:
            self.refuse(404, "RevisionNotFound")
            return None
        return str(sha)

    # --- what is asked ---

    def handle_one(self) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path), parse_qs(address.query)
        self.hub.requests.append(f"{self.command} {path}")
        for pattern, answer in (
            (r"/api/repos/create", self.create),
            (r"/api/validate-yaml", self.validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/(.+)", self.preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            (r"/uploads/(\w+)", self.upload),
            (r"/api/models/([^/]+/[^/]+)/commit/(.+)", self.commit),
            (r"/api/models/([^/]+/[^/]+)/tree/(.+)", self.tree),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.info),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            (r"/cdn/(\w+)", self.download),
        ):
            if match := re.fullmatch(pattern, path):
                answer(*match.groups(), **({"query": query} if answer == self.tree else {}))
                return
        self.content()
        self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def create(self) -> None:
        asked = json.loads(self.content())
        if not self.authorized:
            return self.refuse(401, "InvalidToken")
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
        exists = name in self.hub.repositories
        private = asked.get("private") or asked.get("visibility") == "private"  # by version
        if not exists:
            self.hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self.reply(409 if exists else 200, {"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        return None

    def validate(self) -> None:
        license = re.search(r"^license: (\S+)$", json.loads(self.content())["content"], re.M)
        known = license is not None and license[1] in {"cc-by-4.0", "mit", "other", "unknown"}
        errors = [] if known else [{"message": '"license" must be one of ...'}]
        self.reply(200 if known else 400, {"errors": errors, "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        asked = json.loads(self.content())["files"]
        if not self.authorized:
            return self.refuse(403, "Forbidden")
        modes = {True: "lfs", False: "regular"}
        rows = [
            {"path": row["path"], "uploadMode": modes[row["path"].endswith(".safetensors")], "shouldIgnore": False}
            for row in asked
        ]
        self.reply(200, {"files": rows})
        return None

    def batch(self, name: str) -> None:
        objects = json.loads(self.content())["objects"]
        found = [
            {**one, "actions": {"upload": {"href": f"{self.hub.address}/uploads/{one['oid']}"}}} for one in objects
        ]
        self.reply(200, {"transfer": "basic", "objects": found})

    def upload(self, oid: str) -> None:
        body = self.content()
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.reply(200)

    def commit(self, name: str, revision: str) -> None:
        files: dict[str, bytes] = {}
        for line in self.content().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.hub.large[entry["value"]["oid"]]
        sha = self.hub.commit(name, files)
        self.reply(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def info(self, name: str, revision: str | None) -> None:
        if (found := self.repository(name)) and (sha := self.revision(found, revision or "main")):
            siblings = [{"rfilename": path} for path in found["commits"][sha]]
            about = {"_id": "0", "id": name, "sha": sha, "private": found["private"], "siblings": siblings}
            self.reply(200, about | {"tags": [], "downloads": 0, "likes": 0})

    def tree(self, name: str, revision: str, *, query: dict[str, list[str]]) -> None:
        if (found := self.repository(name)) and (sha := self.revision(found, revision)):
            rows = []
            for path, body in found["commits"][sha].items():
                row = {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                if path.endswith(".safetensors"):
                    row["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
                rows.append(row)
            self.reply(200, rows)

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not ((found := self.repository(name)) and (sha := self.revision(found, revision))):
            return None
        body = found["commits"][sha].get(path)
        if body is None:
            return self.refuse(404, "EntryNotFound")
        if path.endswith(".safetensors"):  # large files lie elsewhere
            oid = hashlib.sha256(body).hexdigest()
            self.hub.large[oid] = body
            elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
            where = {"Location": f"{elsewhere}/cdn/{oid}", "X_Linked_Etag": f'"{oid}"'}
            return self.reply(302, **where, X_Linked_Size=str(len(body)), X_Repo_Commit=sha)
        return self.give(body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=sha)

    def download(self, oid: str) -> None:
        assert "Authorization" not in self.headers, "a token went to another host"
        self.give(self.hub.large[oid], breaks=self.command == "GET", ETag=f'"{oid}"')

    def give(self, body: bytes, *, breaks: bool = False, **headers: str) -> None:
        """A file or the rest of it, which may break off."""
        begin = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, "0"])[1])
        self.send_response(206 if begin else 200)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        if breaks and self.hub.breaks:
            self.wfile.write(body[begin : begin + self.hub.breaks.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(1)
        else:
            self.wfile.write(body[begin:])
