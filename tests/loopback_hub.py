"""A small Hub on loopback: the endpoints that the real huggingface_hub client uses to publish and to download.

Repositories live in memory as commits of whole trees. ``fail`` makes the next requests whose path contains a key answer
with a status, so that interrupted uploads and busy servers can be tested.
"""

import base64
import hashlib
import json
import re
from urllib.parse import unquote, urlsplit

from loopback_server import JsonHandler, LoopbackServer

TOKEN = "hf_loopback_token"


class LoopbackHub(LoopbackServer):
    def __init__(self):
        self.repos: dict[str, dict] = {}
        self.objects: dict[str, bytes] = {}
        self.fail: dict[str, list[int]] = {}
        self.log: list[str] = []
        super().__init__(_Handler)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        commits = self.repos[repo]["commits"]
        if not commits:
            return {}
        return next((tree for sha, tree in reversed(commits) if revision in ("main", sha)), {})

    def head(self, repo: str) -> str:
        commits = self.repos[repo]["commits"]
        return commits[-1][0] if commits else "0" * 40


class _Handler(JsonHandler):
    hub: LoopbackHub

    def _route(self, method: str):
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length) if length else b""
        self.hub.log.append(f"{method} {path}")
        for part, statuses in self.hub.fail.items():
            if part in f"{method} {path}" and statuses:
                status = statuses.pop(0)
                if status == 0:  # the connection breaks
                    self.close_connection = True
                    self.connection.close()
                    return
                self._send(status, {"error": f"answered {status} on purpose"})
                return
        for pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                handler(self, data, **match.groupdict())
                return
        self._send(404, {"error": f"no route {method} {path}"}, {"X-Error-Code": "RepoNotFound"})

    def do_GET(self):
        self._route("GET")

    def do_HEAD(self):
        self._route("HEAD")

    def do_POST(self):
        self._route("POST")

    def do_PUT(self):
        self._route("PUT")

    # --- the endpoints ------------------------------------------------------------------------------------------

    def _authorised(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send(401, {"error": "Invalid username or password."})
        return False

    def _known(self, repo: str) -> bool:
        if repo in self.hub.repos:
            return True
        self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return False

    def whoami(self, data):
        if self._authorised():
            self._send(
                200,
                {
                    "type": "user",
                    "name": "tester",
                    "orgs": [{"name": "org"}],
                    "auth": {"accessToken": {"role": "write"}},
                },
            )

    def create(self, data):
        if not self._authorised():
            return
        wanted = json.loads(data)
        repo = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        if repo in self.hub.repos:
            self._send(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
            return
        private = wanted.get("private", wanted.get("visibility") == "private")
        self.hub.repos[repo] = {"private": private, "commits": []}
        self._send(200, {"url": f"{self.hub.url}/{repo}"})

    def validate_yaml(self, data):
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, data, repo, revision):
        if self._authorised() and self._known(repo):
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".onnx", ".png")) else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(data)["files"]
            ]
            self._send(200, {"files": files})

    def lfs_batch(self, data, repo):
        if self._authorised():
            objects = []
            for item in json.loads(data)["objects"]:
                entry = {"oid": item["oid"], "size": item["size"]}
                if item["oid"] not in self.hub.objects:
                    entry["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{item['oid']}"}}
                objects.append(entry)
            self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, data, oid):
        if hashlib.sha256(data).hexdigest() != oid:
            self._send(400, {"error": "checksum"})
            return
        self.hub.objects[oid] = data
        self._send(200)

    def commit(self, data, repo, revision):
        if not (self._authorised() and self._known(repo)):
            return
        tree = dict(self.hub.files(repo))
        for line in map(json.loads, data.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                tree.pop(value["path"], None)
        digest = hashlib.sha1(repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in tree.items())).encode())
        sha = digest.hexdigest()
        self.hub.repos[repo]["commits"].append((sha, tree))
        self._send(
            200,
            {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "hookOutput": ""},
        )

    def info(self, data, repo, revision="main"):
        if self._known(repo):
            files = self.hub.files(repo, revision)
            sha = self.hub.head(repo) if revision == "main" else revision
            if not files and revision != "main" and self.hub.repos[repo]["commits"]:
                self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
                return
            siblings = [{"rfilename": name} for name in sorted(files)]
            self._send(
                200,
                {
                    "id": repo,
                    "modelId": repo,
                    "sha": sha,
                    "private": self.hub.repos[repo]["private"],
                    "siblings": siblings,
                    "tags": [],
                },
            )

    def tree(self, data, repo, revision, path=None):
        if self._known(repo):
            names = {
                n: c
                for n, c in self.hub.files(repo, revision).items()
                if not path or n.startswith(path.strip("/") + "/")
            }
            if path and not names:
                self._send(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
                return
            self._send(
                200,
                [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in sorted(names.items())
                ],
            )

    def refs(self, data, repo):
        if self._known(repo):
            self._send(
                200,
                {
                    "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": self.hub.head(repo)}],
                    "tags": [],
                    "converts": [],
                },
            )

    def resolve(self, data, repo, revision, name, method):
        if not self._known(repo):
            return
        files = self.hub.files(repo, revision)
        sha = self.hub.head(repo) if revision == "main" else revision
        if not files:
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
            return
        if name not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        content = files[name]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if method == "HEAD":
            self._send(200, headers=headers | {"Content-Length": str(len(content))})
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            start, end = int(span[1]), int(span[2] or len(content) - 1)
            part = content[start : end + 1]
            self._send(206, part, headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"})
            return
        self._send(200, content, headers)


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES = [
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate_yaml),
    (rf"POST /api/models/{_REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"PUT /upload/(?P<oid>\w+)", _Handler.lfs_upload),
    (rf"POST /api/models/{_REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (rf"GET /api/models/{_REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    (rf"GET /api/models/{_REPO}/refs", _Handler.refs),
    (rf"GET /api/models/{_REPO}/tree/(?P<revision>[^/]+)(?P<path>/.*)?", _Handler.tree),
    (rf"GET /api/models/{_REPO}", _Handler.info),
    (rf"(?P<method>GET|HEAD) /{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.resolve),
]
