"""Start-up time of ``masterkey --help`` and ``masterkey list`` against ``hf --help``, in turns, as whole processes.

python -m masterkey.benchmarks.scripts.start -o benchmarks/results/start.json
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from ..measure import describe_machine, paired_ratio
from .record import arguments, record

COMMANDS = {
    "hf --help": ["hf", "--help"],
    "masterkey --help": ["masterkey", "--help"],
    "masterkey list": ["masterkey", "list"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one run of a command that lies beside this Python."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True, capture_output=True)
    return time.perf_counter() - start


def imports_torch(command: list[str]) -> bool:
    """Whether the command loads torch, by Python's own list of imports."""
    script = str(Path(sys.executable).parent / command[0])
    run = subprocess.run([sys.executable, "-X", "importtime", script, *command[1:]], check=True, capture_output=True)
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in run.stderr.decode().splitlines())


def main() -> None:
    """Measure, print and record."""
    parser = arguments(__doc__, "start.json")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(options.rounds + 2):
        for name, command in COMMANDS.items():
            elapsed = seconds(command)
            if round_ >= 2:  # the first rounds fill the page cache
                times[name].append(elapsed)
    reference = times["hf --help"]
    commands: dict[str, Any] = {}
    for name, took in times.items():
        figures = {
            "median_s": round(median(took), 3),
            **paired_ratio(took, reference),
            "imports_torch": imports_torch(COMMANDS[name]),
        }
        commands[name] = figures
        print(f"{name:18} {figures['median_s']:.3f} s, {figures['ratio']:.2f} of hf --help {figures['interval']}")
    result = {"machine": describe_machine(), "commands": commands}
    record(options.output, result)


if __name__ == "__main__":
    main()
