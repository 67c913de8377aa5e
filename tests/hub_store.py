"""What the test server holds: repositories with commits, branches and files, as the Hub has them."""

import hashlib
import json
import mmap
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".tar", ".png", ".parquet")
LFS_SIZE = 10 * 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """The content of a file, in git itself or in LFS; a large one may be mapped into memory."""

    data: bytes | mmap.mmap
    lfs: bool

    @staticmethod
    def of(path: str, content: bytes | Path) -> "Blob":
        if isinstance(content, Path):
            with content.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return Blob(content, path.endswith(LFS_SUFFIXES) or len(content) > LFS_SIZE)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """The hash that git gives the file, or its LFS pointer."""
        text = self.pointer if self.lfs else bytes(self.data)
        return hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclass
class Repository:
    """Branches and tags point to commits, commits to files."""

    repo_id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: int = 0

    def commit(self, files: Mapping[str, Blob], revision: str = "main") -> str:
        """Make ``files`` the whole content of ``revision``; return the commit."""
        listing = [[path, blob.git_oid] for path, blob in sorted(files.items())]
        text = json.dumps([self.repo_id, self.refs.get(revision), len(self.commits), listing])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[revision] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Return the commit that a branch, a tag, or a commit's beginning means."""
        if revision in self.refs:
            return self.refs[revision]
        return next((sha for sha in self.commits if len(revision) >= 7 and sha.startswith(revision)), None)

    def card(self, sha: str) -> dict[str, Any]:
        """Return the front matter of the README."""
        readme = self.commits[sha].get("README.md")
        text = bytes(readme.data).decode() if readme else ""
        if not text.startswith("---"):
            return {}
        found = yaml.safe_load(text.split("---")[1])
        return found if isinstance(found, dict) else {}

    def info(self, sha: str, blobs: bool = False) -> dict[str, Any]:
        card = self.card(sha)
        tags = [*_listed(card.get("tags")), *filter(None, [card.get("library_name")])]
        tags += [f"license:{card['license']}"] if card.get("license") else []
        tags += [f"dataset:{name}" for name in _listed(card.get("datasets"))]
        tags += [f"base_model:{name}" for name in _listed(card.get("base_model"))]
        siblings: list[dict[str, Any]] = []
        for path, blob in sorted(self.commits[sha].items()):
            entry: dict[str, Any] = {"rfilename": path}
            if blobs:
                entry |= {"size": len(blob.data), "blobId": blob.git_oid}
                if blob.lfs:
                    lfs = {"size": len(blob.data), "sha256": blob.sha256, "pointerSize": len(blob.pointer)}
                    entry |= {"lfs": lfs}
            siblings.append(entry)
        return {
            "_id": hashlib.sha1(self.repo_id.encode()).hexdigest()[:24],
            "id": self.repo_id.removeprefix("datasets/"),
            "modelId": self.repo_id,
            "author": self.repo_id.removeprefix("datasets/").split("/")[0],
            "sha": sha,
            "private": self.private,
            "gated": "auto" if self.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": list(dict.fromkeys(tags)),
            "library_name": card.get("library_name"),
            "cardData": card,
            "siblings": siblings,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }

    def entry(self, sha: str, path: str) -> dict[str, Any]:
        """Describe a file as ``tree`` and ``paths-info`` do."""
        blob = self.commits[sha][path]
        found: dict[str, Any] = {"type": "file", "oid": blob.git_oid, "size": len(blob.data), "path": path}
        if blob.lfs:
            found["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
        return found


class Store:
    """Every repository, and the LFS objects that were uploaded and wait for a commit."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploaded: dict[str, bytes] = {}
        self.files: dict[str, Blob] = {}
        self.lock = threading.RLock()

    def add(self, repo_id: str, files: Mapping[str, bytes | Path], **about: bool) -> str:
        """Make a repository, or a new commit in it, with exactly these files; return the commit."""
        with self.lock:
            repository = self.repositories.setdefault(repo_id, Repository(repo_id))
            for key, value in about.items():
                setattr(repository, key, value)
            return repository.commit({path: Blob.of(path, content) for path, content in files.items()})


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
