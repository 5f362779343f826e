"""A small Hub of datasets on loopback: what the real `datasets` client asks for to list and download one."""

import hashlib
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_server import JsonHandler, LoopbackServer


class DatasetHub(LoopbackServer):
    """``datasets[repo][revision][path]`` is a file's content; a revision is also known by its commit's hash."""

    def __init__(self):
        self.datasets: dict[str, dict[str, dict[str, bytes]]] = {}
        super().__init__(_Handler)


def commit_of(repo: str, revision: str) -> str:
    return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


class _Handler(JsonHandler):
    hub: DatasetHub

    def _answer(self):
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                repo, revision, rest = (unquote(part or "") for part in (*match.groups(), "", "")[:3])
                files, sha = self._files(repo, revision or "main")
                if repo not in self.hub.datasets:
                    self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                elif files is None:
                    self._send(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
                else:
                    handler(self, repo, files, sha, rest, body)
                return
        self._send(404, {"error": f"no route {path}"}, {"X-Error-Code": "RepoNotFound"})

    do_GET = do_HEAD = do_POST = _answer

    def _files(self, repo: str, revision: str):
        for name, files in self.hub.datasets.get(repo, {}).items():
            if revision in (name, commit_of(repo, name)):
                return files, commit_of(repo, name)
        return None, ""

    def info(self, repo, files, sha, rest, body):
        siblings = [{"rfilename": name} for name in sorted(files)]
        self._send(200, {"id": repo, "sha": sha, "private": False, "siblings": siblings, "tags": []})

    def tree(self, repo, files, sha, rest, body):
        prefix = rest.strip("/") + "/" if rest.strip("/") else ""
        inside = [name for name in files if name.startswith(prefix)]
        if prefix and not inside:
            self._send(404, {"error": "no such folder"}, {"X-Error-Code": "EntryNotFound"})
            return
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("1", "true")
        below = [name for name in _with_folders(inside) if name.startswith(prefix)]
        self._send(200, [_entry(name, files) for name in below if recursive or "/" not in name.removeprefix(prefix)])

    def paths_info(self, repo, files, sha, rest, body):
        text = body.decode()
        paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        known = _with_folders(files)
        self._send(200, [_entry(name, files) for name in paths if name in known])

    def resolve(self, repo, files, sha, rest, body):
        if rest not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        self._send(200, files[rest], {"ETag": f'"{hashlib.sha256(files[rest]).hexdigest()}"', "X-Repo-Commit": sha})


def _with_folders(names) -> list[str]:
    folders = {name.rsplit("/", depth)[0] for name in names for depth in range(1, name.count("/") + 1)}
    return sorted({*names, *folders})


def _entry(name: str, files: dict[str, bytes]) -> dict:
    oid = hashlib.sha1(name.encode()).hexdigest()
    if name not in files:
        return {"type": "directory", "path": name, "oid": oid, "size": 0}
    return {"type": "file", "path": name, "oid": oid, "size": len(files[name])}


_REPO = r"([^/]+/[^/]+)"
_ROUTES = [
    (rf"/api/datasets/{_REPO}/revision/([^/]+)", _Handler.info),
    (rf"/api/datasets/{_REPO}/tree/([^/]+)(/.*)?", _Handler.tree),
    (rf"/api/datasets/{_REPO}/paths-info/([^/]+)", _Handler.paths_info),
    (rf"/api/datasets/{_REPO}", _Handler.info),
    (rf"/datasets/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
