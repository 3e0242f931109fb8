"""A Hub on loopback, in memory: the calls that huggingface_hub makes to push and pull a model or a Space, and those
that `datasets` makes to load a data set, over HTTP."""

import hashlib
import json
import re
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit


TOKENS = {"hf_of_me": "me", "hf_of_somebody_else": "somebody"}
LARGE = (".safetensors", ".png", ".webp")  # what goes through LFS


class RefusedError(Exception):
    """A status other than 200, with the code and sentence that the Hub puts into its headers."""

    def __init__(self, status: int, code: str, message: str):
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


@dataclass
class Repository:
    """The files of each commit, the commits' messages, and which commit `refs/heads/main` or `refs/pr/1` is."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], message: str, ref: str) -> str:
        """Adds a commit, and returns its id."""
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid] = files
        self.messages.append(message)
        self.refs[ref] = oid
        return oid

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag, pull request or commit id."""
        known = self.refs | {oid: oid for oid in self.commits}
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in known:
                return known[name]
        raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class Hub(ThreadingHTTPServer):
    """Serves until the `with` block ends. What the client sent is in `repositories`, by id.

    Args:
        dropped_uploads: How many of the next uploads lose their connection midway.
        dropped_downloads: The same for downloads.

    Names of Spaces in `refused_spaces` cannot be created.
    """

    def __init__(self, dropped_uploads: int = 0, dropped_downloads: int = 0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"  # what HF_ENDPOINT is set to
        self.dropped_uploads, self.dropped_downloads = dropped_uploads, dropped_downloads
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.refused_spaces: set[str] = set()
        self.calls: list[str] = []
        self.lock = threading.Lock()

    def add(self, repo_id: str, files: dict[str, bytes], private: bool = False) -> None:
        """Creates a repository: `name/of-a-model`, `datasets/name/of-a-data-set` or `spaces/name/of-a-space`."""
        self.repositories[repo_id] = Repository(private)
        self.repositories[repo_id].commit(files, "initial commit", "refs/heads/main")

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request: `ROUTES` says which method answers it."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        path = f"{'GET' if self.command == 'HEAD' else self.command} {parts.path}"
        length = int(self.headers.get("Content-Length", 0))
        if self.command == "PUT" and self._drops("dropped_uploads"):
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.body = self.rfile.read(length)
        self.server.calls.append(f"{self.command} {parts.path}")
        try:
            for pattern, answer in ROUTES.items():
                if found := re.fullmatch(pattern, path):
                    content = answer(self, *(unquote(part) for part in found.groups() if part))
                    break
            else:
                raise RefusedError(404, "", f"There is no {path}")
        except RefusedError as refusal:
            self._send(b"", refusal.status, refusal.headers)
        else:
            if content is not None:
                self._send(json.dumps(content).encode(), 200, {"Content-Type": "application/json"})

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        """Prints nothing."""

    def _drops(self, which: str) -> bool:
        with self.server.lock:
            left = getattr(self.server, which)
            setattr(self.server, which, max(left - 1, 0))
        return left > 0

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and "ETag" in (headers or {}) and self._drops("dropped_downloads"):
            content, self.close_connection = content[: len(content) // 2], True
        if self.command != "HEAD":
            self.wfile.write(content)

    def _user(self) -> str | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        if header.removeprefix("Bearer ") not in TOKENS:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        return TOKENS[header.removeprefix("Bearer ")]

    def _repository(self, repo_id: str, write: bool = False) -> Repository:
        user, repository = self._user(), self.server.repositories.get(repo_id)
        owns = user == repo_id.split("/")[-2]
        if repository is None or (repository.private and not owns):
            raise RefusedError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not owns:
            raise RefusedError(403 if user else 401, "", "You have no write access to this repository")
        return repository

    def _create(self) -> None:
        wanted, user = json.loads(self.body), self._user()
        if user is None:
            raise RefusedError(401, "", "Invalid username or password.")
        if wanted.get("organization") not in (None, user):
            raise RefusedError(403, "", f"You don't have the rights to create a model under {wanted['organization']}")
        is_space = wanted.get("type") == "space"
        if is_space and (wanted["sdk"] != "gradio" or wanted["name"] in self.server.refused_spaces):
            raise RefusedError(402, "", "You need a plan for this Space")
        repo_id = f"{'spaces/' if is_space else ''}{user}/{wanted['name']}"
        exists = repo_id in self.server.repositories
        if not exists:
            self.server.add(repo_id, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        self._send(json.dumps({"url": f"{self.server.url}/{repo_id}"}).encode(), 409 if exists else 200)

    def _preupload(self, repo_id: str, revision: str) -> dict:
        repository = self._repository(repo_id, write="create_pr" not in self.query)
        there = repository.commits[repository.resolve(revision)]
        files = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode, oid = "lfs" if path.endswith(LARGE) else "regular", None
            if path in there:
                oid = file_id(path, there[path])
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def _batch(self, repo_id: str) -> dict:
        self._repository(repo_id)
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.server.large_files:
                addresses = {"upload": f"/upload/{item['oid']}", "verify": "/verify"}
                item["actions"] = {name: {"href": self.server.url + path} for name, path in addresses.items()}
        return {"transfer": "basic", "objects": objects}

    def _upload(self, oid: str) -> dict:
        self.server.large_files[oid] = self.body
        return {}

    def _verify(self) -> dict:
        wanted = json.loads(self.body)
        content = self.server.large_files.get(wanted["oid"], b"")
        if hashlib.sha256(content).hexdigest() != wanted["oid"]:
            raise RefusedError(400, "", "The file that arrived is not the file that was announced")
        return {}

    def _commit(self, repo_id: str, revision: str) -> dict:
        opens_pull_request = "create_pr" in self.query
        repository = self._repository(repo_id, write=not opens_pull_request)
        lines = [json.loads(line) for line in self.body.splitlines()]
        message = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        files = dict(repository.commits[repository.resolve(revision)])
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.server.large_files[line["value"]["oid"]]
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        address = f"{self.server.url}/{repo_id}"
        number = sum(name.startswith("refs/pr/") for name in repository.refs) + 1
        oid = repository.commit(
            files, message, f"refs/pr/{number}" if opens_pull_request else f"refs/heads/{revision}"
        )
        pull_request = f"{address}/discussions/{number}" if opens_pull_request else None
        return {"commitUrl": f"{address}/commit/{oid}", "commitOid": oid, "pullRequestUrl": pull_request}

    def _add_ref(self, repo_id: str, revision: str) -> dict:
        repository, tag = self._repository(repo_id, write=True), json.loads(self.body).get("tag")
        ref = f"refs/tags/{tag}" if tag else f"refs/heads/{revision}"
        if ".." in ref:  # which git takes in no name
            raise RefusedError(400, "", f"Invalid ref name: {ref}")
        if ref in repository.refs:
            raise RefusedError(409, "", f"{ref} exists")
        repository.refs[ref] = repository.resolve(revision if tag else "main")
        return {}

    def _refs(self, repo_id: str) -> dict:
        answer: dict[str, list] = {"branches": [], "tags": [], "converts": []}
        for ref, oid in self._repository(repo_id).refs.items():
            _, kind, name = ref.split("/", 2)
            if kind != "pr":
                answer["tags" if kind == "tags" else "branches"].append(
                    {"name": name, "ref": ref, "targetCommit": oid}
                )
        return answer

    def _info(self, repo_id: str, revision: str = "main") -> dict:
        repository = self._repository(repo_id)
        oid = repository.resolve(revision)
        siblings = [{"rfilename": path} for path in repository.commits[oid]]
        return {"id": repo_id.removeprefix("spaces/"), "sha": oid, "private": repository.private, "siblings": siblings}

    def _tree(self, repo_id: str, revision: str, folder: str = "") -> list:
        repository = self._repository(repo_id)
        files = repository.commits[repository.resolve(revision)]
        entries = [{"type": "file", "path": p, "size": len(f), "oid": file_id(p, f)} for p, f in files.items()]
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        entries += [{"type": "directory", "path": path, "size": 0, "oid": file_id(path, b"")} for path in folders]
        return [entry for entry in entries if entry["path"].startswith(f"{folder}/" if folder else "")]

    def _paths_info(self, repo_id: str, revision: str) -> list:
        wanted = parse_qs(self.body.decode())["paths"]
        return [entry for entry in self._tree(repo_id, revision) if entry["path"] in wanted]

    def _resolve(self, repo_id: str, revision: str, path: str) -> None:
        repository = self._repository(repo_id)
        oid = repository.resolve(revision)
        if path not in repository.commits[oid]:
            raise RefusedError(404, "EntryNotFound", f"{path} is not in {repo_id}")
        content = repository.commits[oid][path]
        headers = {"ETag": f'"{file_id(path, content)}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(content[start:], 206, headers)
        else:
            self._send(content, 200, headers)


def file_id(path: str, content: bytes) -> str:
    """What the Hub knows a file's content by: SHA-256 in LFS, and that of git elsewhere."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


MODEL = r"/api/(?:models/|(?=spaces/))((?:spaces/)?[^/]+/[^/]+)"  # or a Space
DATA_SET = r"/api/(datasets/[^/]+/[^/]+)"
ROUTES = {
    "POST /api/repos/create": Handler._create,
    "POST /api/validate-yaml": lambda _handler: {"errors": [], "warnings": []},
    f"POST {MODEL}/preupload/([^/]+)": Handler._preupload,
    r"POST /((?:spaces/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch": Handler._batch,
    "PUT /upload/([0-9a-f]+)": Handler._upload,
    "POST /verify": Handler._verify,
    f"POST {MODEL}/commit/([^/]+)": Handler._commit,
    f"POST {MODEL}/(?:branch|tag)/([^/]+)": Handler._add_ref,
    f"GET {MODEL}/refs": Handler._refs,
    f"GET {MODEL}(?:/revision/([^/]+))?": Handler._info,
    f"GET {MODEL}/tree/([^/]+)": Handler._tree,
    f"GET {DATA_SET}(?:/revision/([^/]+))?": Handler._info,
    f"GET {DATA_SET}/tree/([^/]+)(?:/(.+))?": Handler._tree,
    f"POST {DATA_SET}/paths-info/([^/]+)": Handler._paths_info,
    "GET /((?:datasets/|spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)": Handler._resolve,
}
