"""What the test server answers: the Hub's files and its JSON interface, as ``huggingface_hub`` asks for them."""

import base64
import hashlib
import json
import mmap
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml
from hub_store import Blob, Repository

if TYPE_CHECKING:
    from hub_server import HubServer


@dataclass
class Reply:
    """Status, headers and body; of a ``file`` a range may be asked for."""

    status: int
    body: bytes | mmap.mmap = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: bool = False


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.reply = _json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def answer_cdn(hub: "HubServer", method: str, target: str, token: str | None, body: bytes) -> Reply:
    """Answer as the second host: LFS files by their hash, files of no repository, and uploads."""
    if token:  # as signed storage does: a token must not be shown to another host than the Hub
        return Reply(400, b"Only one auth mechanism allowed")
    parts = [unquote(part) for part in urlsplit(target).path.split("/")[1:]]
    if method == "PUT" and parts[0] == "upload":
        if hashlib.sha256(body).hexdigest() != parts[1]:
            return Reply(400, b"XAmzContentSHA256Mismatch")
        hub.store.uploaded[parts[1]] = body
        return Reply(200)
    if parts[0] == "files":
        blob = hub.store.files.get("/".join(parts[1:]))
    else:
        blob = _by_hash(hub, parts[1]) if len(parts) > 1 else None
    if blob is None:
        return Reply(404, b"NoSuchKey")
    return Reply(200, blob.data, {"ETag": f'"{blob.sha256[:32]}"', "Accept-Ranges": "bytes"}, file=True)


def _by_hash(hub: "HubServer", sha256: str) -> Blob | None:
    for repository in hub.store.repositories.values():
        for files in repository.commits.values():
            for blob in files.values():
                if blob.lfs and blob.sha256 == sha256:
                    return blob
    return None


def answer_hub(hub: "HubServer", method: str, target: str, token: str | None, body: bytes) -> Reply:
    """Answer as the Hub."""
    split = urlsplit(target)
    query = parse_qs(split.query)
    path = split.path
    try:
        with hub.store.lock:
            if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                repo, revision, name = (unquote(part) for part in found.groups())
                return _resolve(hub, repo, revision, name, token)
            if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/(objects/batch|verify)", path):
                _writable(hub, unquote(found[1]), token)
                return (_lfs_batch if found[2] == "objects/batch" else _lfs_verify)(hub, found[1], json.loads(body))
            if path == "/api/models":
                return _list(hub, query)
            if path == "/api/whoami-v2":
                return _whoami(hub, token)
            if path == "/api/validate-yaml" and method == "POST":
                return _validate(json.loads(body)["content"])
            if path == "/api/repos/create" and method == "POST":
                return _create(hub, token, json.loads(body))
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/([\w-]+)(?:/([^/]+)(?:/(.*))?)?)?", path):
                repo, route, revision, rest = (unquote(part or "") for part in found.groups())
                return _model(hub, repo, route, revision or "main", rest, query, token, body)
            if found := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)(?:/([\w-]+)(?:/([^/]+)(?:/(.*))?)?)?", path):
                repo, route, revision, rest = (unquote(part or "") for part in found.groups())
                return _model(hub, repo, route, revision or "main", rest, query, token, body)
        return _json({"error": "Sorry, we can't find the page you are looking for."}, 404)
    except _Refused as refused:
        return refused.reply


def _repository(hub: "HubServer", repo_id: str, token: str | None) -> Repository:
    repository = hub.store.repositories.get(repo_id)
    if repository is None or (repository.private and token not in hub.tokens):
        if token in hub.tokens:
            raise _Refused(404, "RepoNotFound", "Repository not found")
        raise _Refused(401, "RepoNotFound", "Invalid username or password.")
    return repository


def _writable(hub: "HubServer", repo_id: str, token: str | None) -> Repository:
    repository = _repository(hub, repo_id, token)
    if token not in hub.tokens:
        raise _Refused(401 if token is None else 403, "", "You don't have the rights to write to this repository")
    return repository


def _commit(repository: Repository, revision: str) -> str:
    sha = repository.resolve(revision)
    if sha is None:
        raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return sha


def _resolve(hub: "HubServer", repo_id: str, revision: str, path: str, token: str | None) -> Reply:
    repository = _repository(hub, repo_id, token)
    sha = _commit(repository, revision)
    if repository.gated and token not in hub.tokens:
        message = f"Access to model {repo_id} is restricted. You must have access to it and be authenticated."
        raise _Refused(401 if token is None else 403, "GatedRepo", message)
    blob = repository.commits[sha].get(path)
    if blob is None:
        refused = _Refused(404, "EntryNotFound", "Entry not found")
        refused.reply.headers["X-Repo-Commit"] = sha
        raise refused
    headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if not blob.lfs:
        return Reply(200, blob.data, headers, file=True)
    location = f"{hub.cdn}/lfs/{blob.sha256}/{quote(repo_id)}/{quote(path)}?X-Amz-Signature=0"
    linked = {"X-Linked-Size": str(len(blob.data)), "X-Linked-ETag": f'"{blob.sha256}"', "Location": location}
    return Reply(302, b"Found. Redirecting", {**headers, **linked, "Content-Type": "text/plain"})


def _model(
    hub: "HubServer", repo_id: str, route: str, revision: str, rest: str, query: Any, token: str | None, body: bytes
) -> Reply:
    if route in ("preupload", "commit"):
        repository = _writable(hub, repo_id, token)
        change = _preupload if route == "preupload" else _take_commit
        return change(hub, repository, revision, query, body)
    repository = _repository(hub, repo_id, token)
    if route == "refs":
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in repository.refs.items()]
        return _json({"branches": branches, "tags": [], "converts": []})
    sha = _commit(repository, revision)
    if route in ("", "revision"):
        return _json(repository.info(sha, blobs="blobs" in query))
    if route == "tree":
        return _json(_tree(repository, sha, rest, recursive=query.get("recursive", ["false"])[0].lower() == "true"))
    if route == "paths-info":
        wanted = parse_qs(body.decode())["paths"]
        return _json([repository.entry(sha, path) for path in wanted if path in repository.commits[sha]])
    return _json({"error": "Not found"}, 404)


def _tree(repository: Repository, sha: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    paths = [path for path in sorted(repository.commits[sha]) if path.startswith(prefix)]
    folders = sorted({prefix + path.removeprefix(prefix).split("/")[0] for path in paths if "/" in path[len(prefix) :]})
    oid = hashlib.sha1(sha.encode()).hexdigest()
    entries: list[dict[str, Any]] = [{"type": "directory", "oid": oid, "size": 0, "path": path} for path in folders]
    shown = [path for path in paths if recursive or "/" not in path[len(prefix) :]]
    return entries + [repository.entry(sha, path) for path in shown]


def _list(hub: "HubServer", query: dict[str, list[str]]) -> Reply:
    found = []
    for repository in hub.store.repositories.values():
        info = (
            repository.info(repository.refs["main"]) if "main" in repository.refs and not repository.private else None
        )
        if info and set(query.get("filter", [])) <= set(info["tags"]) and query.get("search", [""])[0] in info["id"]:
            found.append(info)
    return _json(found)


def _whoami(hub: "HubServer", token: str | None) -> Reply:
    if token not in hub.tokens:
        return _json({"error": "Invalid username or password."}, 401)
    return _json({"type": "user", "name": "me", "orgs": [{"name": "org"}], "auth": {"type": "access_token"}})


def _validate(content: str) -> Reply:
    try:
        found = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
        assert isinstance(found, dict)
    except (yaml.YAMLError, AssertionError) as error:
        return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return _json({"errors": [], "warnings": []})


def _create(hub: "HubServer", token: str | None, wanted: dict[str, Any]) -> Reply:
    if token not in hub.tokens:
        return _json({"error": "Invalid username or password."}, 401)
    repo_id = f"{wanted['organization'] or 'me'}/{wanted['name']}"
    if repo_id in hub.store.repositories:
        return _json({"error": "You already created this model repo", "url": f"{hub.endpoint}/{repo_id}"}, 409)
    hub.store.add(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"})
    hub.store.repositories[repo_id].private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    return _json({"url": f"{hub.endpoint}/{repo_id}", "name": repo_id, "id": "0"})


def _preupload(hub: "HubServer", repository: Repository, revision: str, query: Any, body: bytes) -> Reply:
    sha = _commit(repository, revision)
    files = []
    for wanted in json.loads(body)["files"]:
        present = repository.commits[sha].get(wanted["path"])
        lfs = Blob.of(wanted["path"], b"").lfs or wanted["size"] > 10 * 1024 * 1024
        entry = {"path": wanted["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        files.append({**entry, **({"oid": present.etag} if present else {})})
    return _json({"files": files})


def _lfs_batch(hub: "HubServer", repo_id: str, wanted: dict[str, Any]) -> Reply:
    objects = []
    for item in wanted["objects"]:
        found = {"oid": item["oid"], "size": item["size"], "authenticated": True}
        if item["oid"] not in hub.store.uploaded and _by_hash(hub, item["oid"]) is None:
            upload = {"href": f"{hub.cdn}/upload/{item['oid']}", "header": {}}
            verify = {"href": f"{hub.endpoint}/{repo_id}.git/info/lfs/verify"}
            found["actions"] = {"upload": upload, "verify": verify}
        objects.append(found)
    return _json({"transfer": "basic", "objects": objects})


def _lfs_verify(hub: "HubServer", repo_id: str, wanted: dict[str, Any]) -> Reply:
    data = hub.store.uploaded.get(wanted["oid"])
    return _json({}) if data is not None and len(data) == wanted["size"] else _json({"error": "not uploaded"}, 404)


def _take_commit(hub: "HubServer", repository: Repository, revision: str, query: Any, body: bytes) -> Reply:
    files = dict(repository.commits[_commit(repository, revision)])
    for line in body.splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            data = hub.store.uploaded.get(value["oid"])
            known = Blob(data, lfs=True) if data is not None else _by_hash(hub, value["oid"])
            if known is None:
                return _json({"error": f"LFS object {value['oid']} was not uploaded"}, 400)
            files[value["path"]] = known
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise _Refused(404, "EntryNotFound", "A file with this name doesn't exist")
        elif key == "deletedFolder":
            files = {path: blob for path, blob in files.items() if not path.startswith(value["path"])}
    pull = None
    if query.get("create_pr") == ["1"]:
        repository.pulls += 1
        revision = f"refs/pr/{repository.pulls}"
        pull = f"{hub.endpoint}/{repository.repo_id}/discussions/{repository.pulls}"
    sha = repository.commit(files, revision)
    answer = {"success": True, "commitOid": sha, "commitUrl": f"{hub.endpoint}/{repository.repo_id}/commit/{sha}"}
    return _json({**answer, "hookOutput": "", "pullRequestUrl": pull})
