"""Fetch banks while something goes wrong at random, and look for a wrong or a half bank.

Each run draws a bank, one to three faults and where in the file they strike; fetches the bank into an empty cache;
and fetches it again without faults. Right is: the bank with the right hash, or a refusal in one sentence; nothing in
the cache but whole files; and the right bank the second time.

Wrong bytes of the right size are drawn for files that are fetched whole. Inside filters that are read in parts out of
a checkpoint of unknown hash nobody could notice them: the Hub announces a hash of whole files only.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = (
    "cut",
    "wrong size",
    "html",
    "status",
    "redirect loop",
    "silent",
    "stalled",
    "no range",
    "wrong range",
    "changed",
)
_CODES = (401, 403, 404, 408, 416, 429, 500, 502, 503, 504)
_WAYS = (("GET",), ("HEAD",), ("GET", "HEAD"))
_FETCH = """
import json
from masterkey import Bank, MasterkeyError
try:
    print(json.dumps({{"sha256": Bank.from_pretrained({name!r}, cache_dir={cache!r}).sha256}}))
except MasterkeyError as refusal:
    print(json.dumps({{"refused": str(refusal)}}))
"""


@dataclass(frozen=True)
class Fetched:
    """A name to fetch, the hash that its bank has, and whether its file is fetched whole."""

    name: str
    path: str
    sha256: str
    whole: bool


def fault_runs(
    hub: Any, worker: Any, banks: list[Fetched], sources: Set[str], folder: Path, runs: int, seed: int
) -> dict[str, Any]:
    """Do ``runs`` runs and count what came of them.

    Args:
        hub: the server of the tests, with the banks on it.
        worker: a process whose Hub it is, with short time limits.
        banks: what may be fetched.
        sources: hashes of the whole files that may be in a cache.
        folder: an empty folder for the caches.
        runs: how many.
        seed: of the draws.
    """
    draw = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    for run in range(runs):
        bank = draw.choice(banks)
        hub.clear()
        faults = [_draw_fault(draw, bank) for _ in range(draw.randint(1, 3))]
        for fault in faults:
            hub.fault(**fault)
        cache = folder / str(run)
        first = _fetch(worker, bank, cache)
        problems = _half_files(cache, sources, bank.sha256)
        hub.clear()
        second = _fetch(worker, bank, cache)
        if first not in ("right", "refused") or second != "right" or problems:
            wrong.append({"run": run, "bank": bank.name, "faults": faults, "got": [first, second, *problems]})
        counts[first] += 1
        shutil.rmtree(cache, ignore_errors=True)
    return {"seed": seed, "runs": runs, "right": counts["right"], "refused": counts["refused"], "wrong": wrong}


def _draw_fault(draw: random.Random, bank: Fetched) -> dict[str, Any]:
    kind = draw.choice([*KINDS, *(["wrong bytes"] * bank.whole)])
    places = ["model.safetensors", "pytorch_model.bin", "config.json"] if kind != "wrong bytes" else [bank.path]
    place = draw.choice([*places, "*api/models", bank.path, bank.path]) if kind != "wrong bytes" else bank.path
    return {
        "path": place,
        "kind": kind,
        "times": draw.choice([1, 2, None, None]),
        "skip": draw.choice([0, 0, 1, 2, 5]),
        "at": draw.random(),
        "code": draw.choice(_CODES),
        "methods": draw.choice(_WAYS),
        "host": draw.choice(["any", "any", "hub", "cdn"]),
        "headers": {"Retry-After": "0"},
    }


def _fetch(worker: Any, bank: Fetched, cache: Path) -> str:
    done = worker.python(_FETCH.format(name=bank.name, cache=str(cache)))
    if done.code != 0:
        return f"traceback: {done.err[-300:]}"
    said = json.loads(done.out)
    if "refused" in said:
        return "refused" if "\n" not in said["refused"] else f"more than a sentence: {said['refused']}"
    return "right" if said["sha256"] == bank.sha256 else f"wrong bank {said['sha256']}"


def _half_files(cache: Path, sources: Set[str], sha256: str) -> list[str]:
    """Name the files of a cache that are neither whole banks nor whole sources."""
    from masterkey.errors import BankFormatError
    from masterkey.format import filters_sha256, read

    found = []
    for path in [*cache.rglob("*.safetensors"), *cache.rglob("*.bin"), *cache.rglob("config.json")]:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() in sources:
            continue
        try:
            if filters_sha256(read(path)[0]) != sha256:
                found.append(f"another bank in {path.name}")
        except BankFormatError as error:
            found.append(str(error))
    return found
