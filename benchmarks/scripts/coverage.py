"""Every timm model with spatial depthwise convolutions, with a computed and with a real bank inside: a CSV row each.

python -m masterkey.benchmarks.scripts.coverage -o benchmarks/results/coverage.csv

Models are built at their own size with timm's initialisers; nothing is downloaded. A run that was stopped goes on
where it stopped. Beside the CSV it writes a summary, ``coverage.md``. What a row states is checked without
masterkey's own plan: the layers by a scan of the modules, their order by hooks in a real forward pass, the filters
by a second statement of the stack rule below.
"""

import csv
import gc
import io
import itertools
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from masterkey import Bank, eject, inject
from masterkey.atomic import write_atomically
from masterkey.closed_form.scale_space import scale_space_filters
from masterkey.fit import fit_kernel

from ..data.catalogue import data_folder
from ..measure import describe_machine
from .record import arguments

CHECKPOINT = "checkpoints/mcunet-320kb-1mb_imagenet.pth"
MOST_FLOPS = 400e9  # of one forward pass: a few seconds on two cores
SMALLER_SIDES = (384, 288, 256, 224, 192, 160, 128)
PERIOD = 1_000_003  # a prime, so that the rows of a matrix differ; more than any depthwise layer has weights

Kernel = tuple[int, int]


@dataclass
class Row:
    """What is found out about one model; ``yes``, or what is wrong. ``…_real`` is the real bank's column."""

    model: str
    family: str
    parameters: int = 0
    layers: int = 0
    filters: int = 0
    kernels: str = ""
    order: str = ""
    replaced_computed: int = 0
    replaced_real: int = 0
    values_computed: str = ""
    values_real: str = ""
    accounted: str = ""
    order_as_called: str = ""
    keys_kept: str = ""
    rest_untouched: str = ""
    ejected: str = ""
    forward: str = ""
    seconds: float = 0.0
    error: str = ""

    @property
    def sound(self) -> bool:
        """Whether every check of values and structure says yes."""
        checks = ("values_computed", "values_real", "accounted", "order_as_called", "keys_kept", "rest_untouched")
        whole = self.replaced_computed == self.replaced_real == self.layers
        return whole and not self.error and all(getattr(self, name) == "yes" for name in (*checks, "ejected"))


class PeriodicDraws(TorchFunctionMode):
    """Makes random tensors of more than ``PERIOD`` numbers repeat: the largest models build five times as fast."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Draw one period and copy it, wherever a large tensor is drawn."""
        draws = func in (torch.Tensor.uniform_, torch.Tensor.normal_)
        if not draws or args[0].numel() <= PERIOD or not args[0].is_contiguous():
            return func(*args, **(kwargs or {}))
        block = func(torch.empty(PERIOD), *args[1:], **(kwargs or {}))
        flat = args[0].view(-1)
        periods, rest = divmod(flat.numel(), PERIOD)
        flat[: periods * PERIOD].view(periods, PERIOD).copy_(block)
        flat[flat.numel() - rest :].copy_(block[:rest])
        return args[0]


class Supply:
    """A bank's filters by kernel size, and the stack rule in other words than ``masterkey.plan``'s.

    Filters are dealt out like cards from one pack for each kernel size that layers have; a pack that runs out
    starts again.
    """

    def __init__(self, filters: Mapping[Kernel, Tensor]) -> None:
        self.filters = filters

    def deal(self, layers: Iterable[tuple[str, Kernel, int]]) -> Iterator[tuple[str, Tensor]]:
        """Yield (layer, its filters) for (layer, kernel, number of filters) in forward order."""
        packs: dict[Kernel, Iterator[Tensor]] = {}
        for name, kernel, count in layers:
            if kernel not in packs:
                packs[kernel] = itertools.cycle(self._source(kernel))
            yield name, fit_kernel(torch.stack(list(itertools.islice(packs[kernel], count))), kernel, "crop")

    def _source(self, kernel: Kernel) -> Tensor:
        if kernel in self.filters:
            return self.filters[kernel]
        assert all(kh == kw for kh, kw in self.filters), "the real bank's kernels are square"
        large_enough = sorted(side for side, _ in self.filters if side >= max(kernel))
        side = large_enough[0] if large_enough else max(side for side, _ in self.filters)
        return self.filters[side, side]


def real_supply(checkpoint: Path) -> Supply:
    """Read the depthwise filters straight out of the checkpoint."""
    weights = torch.load(checkpoint, weights_only=True)["state_dict"].values()
    by_kernel: dict[Kernel, list[Tensor]] = {}
    for weight in weights:
        if weight.ndim == 4 and weight.shape[1] == 1 and max(weight.shape[2:]) > 1:
            by_kernel.setdefault(tuple(weight.shape[2:]), []).append(weight.float())
    return Supply({kernel: torch.cat(parts) for kernel, parts in by_kernel.items()})


def depthwise(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Scan a model for spatial depthwise convolutions, in registration order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels
        and module.in_channels > 1
        and tuple(module.kernel_size) != (1, 1)
    }


def affordable_size(weightless: nn.Module) -> tuple[tuple[int, ...], str]:
    """Choose a picture for the forward pass: the model's own size, or the largest affordable one that it takes.

    Returns:
        (channels, height, width), and why it is not the model's own.
    """
    channels, *own = vars(weightless)["pretrained_cfg"]["input_size"]
    # the counter trips over a tensor without history that a parameter's gradient could reach
    weightless.eval().requires_grad_(False)
    needs = 0
    for size in [tuple(own), *((side, side) for side in SMALLER_SIDES if side < min(own))]:
        counter = FlopCounterMode(display=False)
        try:
            with counter, torch.no_grad():
                weightless(torch.empty(1, channels, *size, device="meta"))
        except Exception:  # a size that the model does not take: each has its own way to say so
            continue
        needs = needs or counter.get_total_flops()
        if counter.get_total_flops() <= MOST_FLOPS:
            return (channels, *size), "own size" if size == tuple(own) else f"its own takes {needs / 1e9:.0f} GFLOP"
    return (channels, *own), "own size"


@contextmanager
def first_calls(layers: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """Collect the layers' names in the order in which they are first called."""
    seen: list[str] = []

    def note(name: str) -> Any:
        return lambda module, args: seen.append(name) if name not in seen else None

    handles = [module.register_forward_pre_hook(note(name)) for name, module in layers.items()]
    yield seen
    for handle in handles:
        handle.remove()


def tensors(output: object) -> Iterator[Tensor]:
    """All tensors in what a model returns."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from tensors(list(output.values()))
    elif isinstance(output, tuple | list):
        for item in output:
            yield from tensors(item)


def examine(name: str, checkpoint: Path) -> Row | None:
    """Put both banks into a model, one after the other, and take them out again. None: no depthwise layers."""
    started = time.perf_counter()
    with torch.device("meta"):
        weightless = timm.create_model(name)
    if not depthwise(weightless):
        return None
    row = Row(name, type(weightless).__name__, sum(parameter.numel() for parameter in weightless.parameters()))
    try:
        size, said = affordable_size(weightless)
        torch.manual_seed(0)
        with PeriodicDraws():
            model = timm.create_model(name).eval()
        layers = depthwise(model)
        row.layers, row.filters = len(layers), sum(layer.out_channels for layer in layers.values())
        kernels = Counter(f"{layer.kernel_size[0]}x{layer.kernel_size[1]}" for layer in layers.values())
        row.kernels = " ".join(f"{kernel}:{count}" for kernel, count in sorted(kernels.items()))
        computed = Supply({kernel: scale_space_filters(kernel) for kernel in {kernel_of(x) for x in layers.values()}})
        check(row, model, layers, Bank.from_pretrained("scale-space-8"), computed, size)
        check(row, model, layers, Bank.from_checkpoint(checkpoint, name="real"), real_supply(checkpoint), size)
        row.forward = row.forward or f"runs at {size[1]}x{size[2]}, {said}"
    except Exception as error:  # the row says what went wrong; the other models are still to be examined
        row.error = f"{type(error).__name__}: {error}"[:500]
    row.seconds = round(time.perf_counter() - started, 1)
    return row


def check(
    row: Row, model: nn.Module, layers: Mapping[str, nn.Conv2d], bank: Bank, supply: Supply, size: tuple[int, ...]
) -> None:
    """Inject, run, compare, eject; note in the row what is not as it should be."""
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    classes = {name: type(layer) for name, layer in layers.items()}
    keys, parameters, rest = list(model.state_dict()), learnable(model), versions(model, layers)

    report = inject(model, bank)
    row.order = report.order
    replaced = len(report.replaced)
    note(row, "keys_kept", set(model.state_dict()) == set(keys))
    note(row, "rest_untouched", versions(model, layers) == rest)
    rows = {item.layer: item for item in report.rows}
    counted = all(item.filters == layers[item.layer].out_channels and item.replaced for item in report.rows)
    note(row, "accounted", len(report.rows) == len(rows) and set(rows) == set(layers) and counted)

    called = run(row, model, layers, size)
    note(row, "order_as_called", [item.layer for item in report.rows] == called)
    targets = [(name, kernel_of(layers[name]), layers[name].out_channels) for name in called]
    wrong = [name for name, filters in supply.deal(targets) if not torch.equal(layers[name].weight, filters)]
    values = "yes" if not wrong and len(targets) == len(layers) else f"no: {len(wrong)} layers, {wrong[:1]}"
    if bank.name == "real":
        row.replaced_real, row.values_real = replaced, values
    else:
        row.replaced_computed, row.values_computed = replaced, values

    eject(model)
    same_bits = all(torch.equal(layers[name].weight, weight) for name, weight in before.items())
    same_classes = all(type(layers[name]) is cls for name, cls in classes.items())
    same_lists = list(model.state_dict()) == keys and learnable(model) == parameters
    note(row, "ejected", same_bits and same_classes and same_lists and versions(model, layers) == rest)


def run(row: Row, model: nn.Module, layers: Mapping[str, nn.Module], size: tuple[int, ...]) -> list[str]:
    """Run the forward pass with the filters inside and return the layers in the order of their first call."""
    with first_calls(layers) as called, torch.no_grad():
        output = model(torch.randn(1, *size))
    if not all(tensor.isfinite().all() for tensor in tensors(output)):
        row.forward = f"not finite at {size[1]}x{size[2]}"
    return called


def note(row: Row, column: str, holds: bool) -> None:
    """Write yes for what holds, and no for good once it did not: both banks share the column."""
    setattr(row, column, "yes" if holds and getattr(row, column) != "no" else "no")


def kernel_of(layer: nn.Conv2d) -> Kernel:
    """(kh, kw)."""
    return layer.kernel_size[0], layer.kernel_size[1]


def learnable(model: nn.Module) -> list[tuple[str, bool]]:
    """Names and requires_grad of the parameters, in order."""
    return [(name, parameter.requires_grad) for name, parameter in model.named_parameters()]


def versions(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Identity and in-place version of every tensor but the depthwise weights: equal if nothing wrote to them."""
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    own = {f"{name}.weight" for name in layers}
    return {name: (id(tensor), tensor._version) for name, tensor in named if name not in own}


def read_rows(path: Path) -> list[Row]:
    """Read the rows of an earlier run; half a line at the end, left by a kill, is cut off."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    types: dict[str, Any] = {field.name: field.type for field in fields(Row)}
    return [Row(**{key: types[key](value) for key, value in raw.items()}) for raw in csv.DictReader(whole.splitlines())]


def examine_all(names: list[str], checkpoint: Path, jobs: int) -> Iterator[tuple[str, Row | None]]:
    """Yield each model's row when it is there."""
    if jobs == 1:
        for name in names:
            yield name, examine(name, checkpoint)
            gc.collect()  # some models hold themselves in a cycle, and the next one may need gigabytes
        return
    # a fresh process now and then gives its memory back
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=50) as pool:
        pending = {pool.submit(examine, name, checkpoint): name for name in names}
        for done in as_completed(pending):
            yield pending[done], done.result()


def summary(rows: list[Row], searched: int) -> str:
    """The counts, and every exception by name."""
    layers, filters = sum(row.layers for row in rows), sum(row.filters for row in rows)
    kernels: Counter[str] = Counter()
    for row in rows:
        for item in row.kernels.split():
            kernel, _, count = item.partition(":")
            kernels[kernel] += int(count)
    counts = [
        f"{len(rows)} of {searched:,} models hold spatial depthwise convolutions: {len({row.family for row in rows})} "
        f"classes, {layers:,} layers, {filters:,} filters",
        "layers by kernel: " + ", ".join(f"{kernel} {count:,}" for kernel, count in kernels.most_common()),
        f"scale-space-8 in {sum(row.replaced_computed for row in rows):,} layers, "
        f"the real bank in {sum(row.replaced_real for row in rows):,}",
        f"every check holds for {sum(row.sound for row in rows)} models",
        f"order of a forward pass for {sum(row.order == 'forward' for row in rows)} models",
        f"the forward pass runs for {sum(row.forward.startswith('runs') for row in rows)} models, "
        f"{sum('own size' in row.forward for row in rows)} of them at their own size",
    ]
    exceptions = [
        f"{row.model}: {row.error or row.forward}"
        for row in rows
        if not row.sound or row.order != "forward" or not row.forward.startswith("runs")
    ]
    smaller = Counter(row.family for row in rows if row.forward.startswith("runs") and "own size" not in row.forward)
    if smaller:
        counts.append("at a smaller size, for cost: " + ", ".join(f"{count} {name}" for name, count in smaller.items()))
    return "\n".join(f"- {line}" for line in [*counts, *(exceptions or ["no exceptions"])])


def main() -> None:
    """Examine what is not in the CSV yet, then sum up all of it."""
    parser = arguments(__doc__, "coverage.csv")
    parser.add_argument("--models", default="", metavar="PATTERN", help="timm names, as a shell pattern")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1); each may need 6 GiB")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = timm.list_models(options.models)
    rows = read_rows(options.output)
    done = {row.model for row in rows}
    started = time.perf_counter()
    with options.output.open("a", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        waiting = [name for name in names if name not in done]
        for i, (_, row) in enumerate(examine_all(waiting, data_folder() / CHECKPOINT, options.jobs), 1):
            if row is not None:
                rows.append(row)
                writer.writerow(asdict(row))
                file.flush()
                state = "sound" if row.sound else f"NOT SOUND {row.error}"
                print(f"{i}/{len(waiting)} {row.model}: {state}; {row.forward}; {row.seconds} s", flush=True)
    rows.sort(key=lambda row: names.index(row.model) if row.model in names else len(names))
    table = io.StringIO()  # once more, in timm's order
    writer = csv.DictWriter(table, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(options.output, table.getvalue().encode())
    text = summary([row for row in rows if row.model in set(names)], len(names))
    print(text)
    if not options.models:
        machine = ", ".join(f"{key} {value}" for key, value in describe_machine().items())
        minutes = sum(row.seconds for row in rows) / 60
        command = shlex.join(["python", "-m", "masterkey.benchmarks.scripts.coverage", *sys.argv[1:]])
        head = f"# Coverage\n\n    {command}\n\n{machine}; {minutes:.0f} minutes in the rows, "
        head += f"{(time.perf_counter() - started) / 60:.0f} in the last run.\n\n"
        options.output.with_suffix(".md").write_text(f"{head}{text}\n")


if __name__ == "__main__":
    main()
