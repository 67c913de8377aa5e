"""What a bank out of a checkpoint on the Hub costs: bytes, time, and what happens when something goes wrong.

python -m masterkey.benchmarks.scripts.hub -o benchmarks/results/hub.json

The Hub is the server of the tests (``--server`` says where its modules are), the client the real huggingface_hub in
processes of their own, the checkpoints are timm's networks with random weights: only names, shapes and order matter.
"""

import hashlib
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from ..measure import describe_machine
from .fault_runs import Fetched, fault_runs
from .record import arguments, record, recorded

MODELS = {"convnext_tiny": 0.02, "convnext_large": 0.01}  # and at most which share of the file may be read
LINE = 20e6  # bytes a second
_IMPORTS = "import time, json, timm, masterkey\nfrom masterkey import Bank, hub\nfrom masterkey.hub import extraction\n"
_TIME = (
    _IMPORTS
    + """
from masterkey.create import build_timm
build_timm("test_convnext")
start = time.perf_counter()
{work}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""
)
_CACHED = (
    _IMPORTS
    + """
times, cpu = [], []
for _ in range({rounds}):
    start, busy = time.perf_counter(), time.process_time()
    bank = Bank.from_pretrained({name!r}, local_files_only=True)
    times.append(time.perf_counter() - start)
    cpu.append(time.process_time() - busy)
print(json.dumps({{"times": times, "cpu": cpu, "filters": len(bank)}}))
"""
)


def main() -> None:
    """Measure, print and record."""
    parser = arguments(__doc__, "hub.json")
    parser.add_argument("--server", type=Path, default=Path("tests"), help="folder of hub_server.py")
    parser.add_argument("--only", action="append", choices=[*MODELS, "faults"], help="only this part; may be repeated")
    parser.add_argument("--runs", type=int, default=200, help="runs with random faults")
    parser.add_argument(
        "--jobs", type=int, default=4, help="such runs at a time, each with a seed and server of its own"
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each download is timed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(options.server.resolve()))
    hub_server: Any = import_module("hub_server")
    with tempfile.TemporaryDirectory() as temporary, hub_server.HubServer() as hub:
        folder = Path(temporary)
        for part in options.only or [*MODELS, "faults"]:
            if part == "faults":
                jobs = min(options.jobs, options.runs)
                found = measure_faults(hub_server.HubServer, folder, options.runs, options.seed, jobs)
                print(
                    f"{found['runs']} runs with random faults, seeds {found['seeds']}: {found['right']} right, ", end=""
                )
                print(f"{found['refused']} refused, {len(found['wrong'])} wrong {found['wrong']}")
            else:
                found = measure_model(hub, part, folder, options.rounds)
                print(f"{part}: {found['share']:.2%} of the file read (at most {MODELS[part]:.0%}): {found}")
            record_part(options.output, part, found)


def record_part(path: Path, part: str, found: dict[str, Any]) -> None:
    """Put the figures of a part into the result file, with what they depend on; the other parts stay."""
    known = recorded(path)
    machine = {**describe_machine(), "huggingface_hub": version("huggingface_hub")}
    command = " ".join(["python -m masterkey.benchmarks.scripts.hub", *sys.argv[1:]])
    known[part] = {**found, "command": command, "machine": machine}
    record(path, dict(sorted(known.items())))


def measure_model(hub: Any, name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Put a network on the server; count bytes and time of an extraction and of a download, and of a cached bank."""
    repo_id = f"timm/{name}.random"
    size = add_network(hub, name, repo_id, folder)
    hub.bytes_per_second = LINE
    names = {"timm": repo_id, "hf": f"hf://{repo_id}/model.safetensors"}
    times: dict[str, list[float]] = {"timm": [], "hf": [], "whole": []}
    shares = {}
    for round_ in range(rounds):
        for way, bank in names.items():
            hub.clear()
            work = f"Bank.from_pretrained({bank!r})"
            times[way].append(_run(hub, _TIME.format(work=work), folder / f"{name}-{way}-{round_}")["seconds"])
            shares[way] = hub.sent() / size
    work = f"from huggingface_hub import hf_hub_download\nhf_hub_download({repo_id!r}, 'model.safetensors')"
    times["whole"].append(_run(hub, _TIME.format(work=work), folder / f"{name}-whole")["seconds"])
    hub.bytes_per_second = None
    cached = _run(hub, _CACHED.format(name=repo_id, rounds=30), folder / f"{name}-timm-0")
    seconds = {way: median(each) for way, each in times.items()}
    return {
        "file_bytes": size,
        "line_bytes_per_second": LINE,
        "share": max(shares.values()),
        "shares": {way: round(share, 5) for way, share in shares.items()},
        "seconds": {way: [round(each, 2) for each in found] for way, found in times.items()},
        "times_faster": {way: round(seconds["whole"] / seconds[way], 1) for way in names},
        "cached_bank_ms": round(1000 * median(cached["times"]), 1),
        "cached_bank_best_ms": round(1000 * min(cached["times"]), 1),
        "cached_bank_cpu_ms": round(1000 * median(cached["cpu"]), 1),
        "filters": cached["filters"],
    }


def add_network(hub: Any, name: str, repo_id: str, folder: Path) -> int:
    """Put a network of timm's, with random weights, on the server as timm does; return its file's size in bytes."""
    import timm
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    save_file(timm.create_model(name).state_dict(), path)
    config = {"architecture": name, "num_classes": 1000, "pretrained_cfg": {"license": "apache-2.0"}}
    card = b'---\n{"license": "apache-2.0", "tags": ["timm"], "datasets": ["imagenet-1k"]}\n---\n'
    hub.add(repo_id, {"config.json": json.dumps(config).encode(), "model.safetensors": path, "README.md": card})
    return path.stat().st_size


def measure_faults(new_hub: Any, folder: Path, runs: int, seed: int, jobs: int) -> dict[str, Any]:
    """Do the runs with faults, ``jobs`` at a time, each on a server of its own: most of the time is waiting."""
    with ThreadPoolExecutor(jobs) as pool:
        shares = [len(range(job, runs, jobs)) for job in range(jobs)]
        each = [
            pool.submit(fault_job, new_hub, folder / f"job-{job}", share, seed + job)
            for job, share in enumerate(shares)
        ]
        found = [job.result() for job in each]
    sums = {key: sum(part[key] for part in found) for key in ("runs", "right", "refused")}
    return {
        **sums,
        "seeds": [part["seed"] for part in found],
        "wrong": [run for part in found for run in part["wrong"]],
    }


def fault_job(new_hub: Any, folder: Path, runs: int, seed: int) -> dict[str, Any]:
    """Fetch small banks of every kind while something goes wrong at random."""
    import io

    import timm
    import torch
    from safetensors.torch import save

    from masterkey.extract import from_model
    from masterkey.folder import bank_files
    from masterkey.format import filters_sha256

    hub_worker: Any = import_module("hub_worker")
    network = timm.create_model("test_convnext")
    bank = from_model(network)
    natural = filters_sha256({name: bank.layers[name] for name in sorted(bank.layers)})
    files: dict[str, bytes] = {
        "config.json": b'{"architecture": "test_convnext", "pretrained_cfg": {}}',
        "model.safetensors": save(network.state_dict()),
    }
    for file, zipped in (("pytorch_model.bin", True), ("legacy.bin", False)):
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer, _use_new_zipfile_serialization=zipped)
        files[file] = buffer.getvalue()
    published = bank_files(bank)
    banks = [
        Fetched("org/faults", "model.safetensors", bank.sha256, whole=True),
        Fetched("timm/test_convnext.faults", "model.safetensors", bank.sha256, whole=False),
        Fetched("hf://timm/test_convnext.faults/model.safetensors", "model.safetensors", natural, whole=False),
        Fetched("hf://timm/test_convnext.faults/pytorch_model.bin", "pytorch_model.bin", bank.sha256, whole=False),
        Fetched("hf://timm/test_convnext.faults/legacy.bin", "legacy.bin", bank.sha256, whole=True),
    ]
    sources = {hashlib.sha256(data).hexdigest() for data in [*files.values(), *published.values()]}
    hurry = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    with new_hub() as hub, hub_worker.Worker(hub, folder / "home", **hurry) as worker:
        hub.add("timm/test_convnext.faults", files)
        hub.add("org/faults", published)
        return fault_runs(hub, worker, banks, sources, folder / "caches", runs, seed)


def _run(hub: Any, code: str, home: Path) -> dict[str, Any]:
    done = hub.run("-c", code, home=home, timeout=3600, HF_HUB_DISABLE_PROGRESS_BARS="1")
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
