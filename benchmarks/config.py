"""A run, described completely: equal descriptions are the same run, and give the same ``metrics``."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from masterkey.metadata import KINDS, canonical_json
from masterkey.rules import DEFAULT_KERNEL, DEFAULT_POLICY, DEFAULT_SCALE

from .errors import BenchmarkError
from .typed import as_typed, check_fields, near

__all__ = ["ArmConfig", "BenchmarkError", "DataConfig", "RunConfig", "TrainConfig", "run_config"]

# seconds of a run between two checkpoints: the most that a kill costs
CHECKPOINT_EVERY = 120.0
# of data that ``datasets`` reads
COLUMNS = ("image", "label", "subset")
INTERPOLATIONS = ("bilinear", "bicubic")
# fields that came later: a run's id knows nothing of one that is as it always was
_LATER: dict[str, dict[str, Any]] = {
    "data": {**dict.fromkeys(COLUMNS), "train_size": None},
    "train": {"train_interpolation": INTERPOLATIONS[0]},
}
VIEWS = ("man-made", "natural")
_INITIALS = ("pretrained", "small-depthwise", "weight-selection")
_LARGEST_SEED = 2**63 - 1  # torch takes no larger one
_Ranges = tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...]  # fields, what they must be, whether they are


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, at which size.

    ``evaluate`` is ``validation`` (a share ``validation`` of train, carved out by ``split_seed``; for every choice)
    or ``test`` (all of train is learnt from; for the final figure only). ``view`` keeps a part of the classes
    (``man-made``, ``natural``). ``per_class`` keeps at most so many pictures of a class, in either part. Pictures are
    stored at ``pixels / crop_pct`` and evaluated on their centre; those that are learnt from at ``train_size`` if it is
    said, so that crops of them need not be enlarged. ``image`` and ``label`` name the columns of parquet
    files or of a repository on the Hub, ``subset`` the repository's configuration; None takes what is plain.
    """

    name: str
    pixels: int = 64
    crop_pct: float = 1.0
    evaluate: str = "test"
    validation: float = 0.2
    split_seed: int = 0
    view: str | None = None
    per_class: int | None = None
    image: str | None = None
    label: str | None = None
    subset: str | None = None
    train_size: int | None = None

    @property
    def judged_size(self) -> int:
        """Side of the stored pictures that are judged on."""
        return round(self.pixels / self.crop_pct)

    @property
    def learnt_size(self) -> int:
        """Side of the stored pictures that are learnt from."""
        return self.train_size or self.judged_size

    @property
    def columns(self) -> dict[str, str]:
        """What is said of ``COLUMNS``."""
        return {name: value for name in COLUMNS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class TrainConfig:
    """The recipe, by timm's option names; epochs and ``warmup_epochs`` are whole passes over train.

    ``freeze_epoch``: the bank's filters learn before this epoch and are frozen from it on.
    ``val_interval``: epochs from one evaluation to the next; the last epoch is always evaluated.
    ``train_interpolation``: how crops are brought to size; bicubic keeps them sharper and takes longer.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 1e-3
    min_lr: float = 1e-6
    warmup_epochs: int = 5
    warmup_lr: float = 1e-6
    weight_decay: float = 0.05
    smoothing: float = 0.1
    drop_path: float = 0.0
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    reprob: float = 0.0
    clip_grad: float | None = None
    model_ema: bool = False
    model_ema_decay: float = 0.9998
    amp: bool = False
    channels_last: bool = False
    freeze_epoch: int | None = None
    val_interval: int = 1
    train_interpolation: str = INTERPOLATIONS[0]


@dataclass(frozen=True)
class ArmConfig:
    """What is done to the network before it is trained; ``name`` is a label and no part of what is done.

    ``bank`` is None (scratch), a name or path for ``Bank.from_pretrained``, ``checkpoint:PATH``, ``run:ID`` (the
    filters that another run of the sweep ended with). ``steps``
    are steps of the bank algebra, as ``[["shuffled", {"seed": 0}]]``. ``inject`` goes to ``masterkey.inject``;
    ``run_config`` writes out the defaults there, so that a run keeps its meaning when they change.
    ``bias`` False freezes the depthwise biases too. ``initial`` says how the network begins: with all weights from
    elsewhere, ``pretrained`` from timm, ``weight-selection`` from the larger ``teacher`` (``run:ID`` or
    ``checkpoint:PATH``); or, ``small-depthwise``, with a tenth of the depthwise filters that it draws.
    """

    name: str = ""
    bank: str | None = None
    kind: str = "depthwise"
    steps: tuple[tuple[str, dict[str, Any]], ...] = ()
    inject: dict[str, Any] = field(default_factory=dict)
    bias: bool = True
    initial: str | None = None
    teacher: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """One run: an arm on a network on data, with a seed.

    Experiments share runs: nothing in here says which experiment asked for it.
    """

    data: DataConfig
    model: str
    arm: ArmConfig
    train: TrainConfig
    seed: int
    model_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_source(self) -> bool:
        """Whether nothing learnt was put in: then its filters and weights are kept, for other runs to take."""
        return self.arm.bank is None and self.arm.initial in (None, "small-depthwise")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the arm's label: experiments that call a run differently share it."""
        plain = asdict(self)
        del plain["arm"]["name"]
        for part, fields in _LATER.items():
            for name, always in fields.items():
                if plain[part][name] == always:
                    del plain[part][name]
        return plain

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the run; anything that changes its outcome changes them."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()[:12]


def run_config(raw: Mapping[str, Any]) -> RunConfig:
    """Build a run from plain data (TOML or JSON).

    Raises:
        BenchmarkError: a field that is unknown or missing, or a value that it cannot have.
    """
    parts = dict(raw)
    arm = dict(parts.pop("arm"))
    check_fields(ArmConfig, arm, f"arm {str(arm.get('name', ''))!r:.80}")
    check_fields(TrainConfig, parts.get("train", {}), "[train]")
    check_fields(DataConfig, parts["data"], f"[data] of {str(parts['data'].get('name', ''))!r:.80}")
    if arm.get("bank") is not None:
        rules = {"policy": DEFAULT_POLICY, "kernel": DEFAULT_KERNEL, "scale": DEFAULT_SCALE, "freeze": True}
        arm["inject"] = {**rules, **arm.get("inject", {})}
    arm["steps"] = tuple((str(op), dict(arguments)) for op, arguments in arm.get("steps", ()))
    made = {
        **parts,
        "data": _make(DataConfig, as_typed(DataConfig, parts.pop("data"))),
        "arm": _make(ArmConfig, arm),
        "train": _make(TrainConfig, as_typed(TrainConfig, parts.pop("train", {}))),
    }
    check_fields(RunConfig, made, "a run")
    return _make(RunConfig, made)


_Config = TypeVar("_Config", DataConfig, TrainConfig, ArmConfig, RunConfig)


def _make(kind: type[_Config], raw: Mapping[str, Any]) -> _Config:
    try:
        made = kind(**raw)
    except TypeError as error:
        raise BenchmarkError(f"{kind.__name__}: {error}") from error
    problem = _problem(made)
    if problem:
        raise BenchmarkError(problem)
    return made


def problem_of_seed(seed: int) -> str | None:
    """Say that a seed is none that a run can have, None if it is one."""
    return None if 0 <= seed <= _LARGEST_SEED else f"seed is {seed!s:.80}; it must be from 0 to 2**63 - 1"


def problem_of_data(data: DataConfig) -> str | None:
    """Say which value of a data set's description is out of its range, None if none is."""
    where = f"[data] of {data.name!r:.80}"
    for key, known in {"evaluate": ("test", "validation"), "view": VIEWS}.items():
        value = getattr(data, key)
        if value is not None and value not in known:
            return f"{where}: {key} is {value!r:.80}; {near(value, known)}"
    return _out_of_range(where, data, _DATA_RANGES)


def _problem(made: "DataConfig | TrainConfig | ArmConfig | RunConfig") -> str | None:
    """Say which value is out of its range, None if none is."""
    if isinstance(made, RunConfig):
        if made.train.freeze_epoch is not None and made.arm.bank is not None and made.arm.inject["freeze"]:
            return (
                f"arm {made.arm.name!r:.80}: freeze_epoch is {made.train.freeze_epoch}, but the bank goes in frozen; "
                "say inject = { freeze = false } as well"
            )
        return problem_of_seed(made.seed)
    if isinstance(made, DataConfig):
        return problem_of_data(made)
    if isinstance(made, ArmConfig):
        arm = f"arm {made.name!r:.80}: "
        if made.kind not in KINDS:
            return f"{arm}kind is {made.kind!r:.80}; {near(made.kind, KINDS)}"
        if made.initial is not None and made.initial not in _INITIALS:
            return f"{arm}initial is {made.initial!r:.80}; {near(made.initial, _INITIALS)}"
        if (made.teacher is not None) != (made.initial == "weight-selection"):
            return f"{arm}initial = 'weight-selection' and a teacher go together, and it has one of them"
        for key, unsaid in {"inject": {}, "steps": (), "kind": "depthwise", "bias": True}.items():
            if made.bank is None and getattr(made, key) != unsaid:
                return f"{arm}{key} is what is done with a bank, and it has none"
    if isinstance(made, TrainConfig):
        if made.train_interpolation not in INTERPOLATIONS:
            says = near(made.train_interpolation, INTERPOLATIONS)
            return f"[train]: train_interpolation is {made.train_interpolation!r:.80}; {says}"
        if problem := _out_of_range("[train]", made, _TRAIN_RANGES):
            return problem
        if made.min_lr > made.lr:
            return f"[train]: min_lr is {made.min_lr}, above the lr of {made.lr}"
        if made.warmup_epochs >= made.epochs:
            said = f"[train]: warmup_epochs is {made.warmup_epochs} of {made.epochs} epochs"
            return f"{said}, so lr is never reached ({TrainConfig.warmup_epochs} where none is said)"
        if made.freeze_epoch is not None and made.freeze_epoch >= made.epochs:
            return f"[train]: freeze_epoch is {made.freeze_epoch} of {made.epochs} epochs, so nothing would be frozen"
    return None


def _out_of_range(where: str, made: DataConfig | TrainConfig, ranges: _Ranges) -> str | None:
    for names, says, holds in ranges:
        for name in names:
            value = getattr(made, name)
            if value is not None and not holds(value):
                return f"{where}: {name} is {_written(value)}; it must be {says}"
    return None


def _written(value: int | float | tuple[float, ...]) -> str:
    """A value as people write it: 1 for 1.0."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


_DATA_RANGES: _Ranges = (
    (("pixels", "per_class", "train_size"), "1 or more", lambda value: value >= 1),
    (("crop_pct",), "above 0 and at most 1", lambda value: 0 < value <= 1),
    (("validation",), "above 0 and below 1", lambda value: 0 < value < 1),
    (("split_seed",), "from 0 to 2**32 - 1", lambda value: 0 <= value < 2**32),
)
_TRAIN_RANGES: _Ranges = (
    (("epochs", "batch_size", "val_interval"), "1 or more", lambda value: value >= 1),
    (("lr", "clip_grad"), "above 0", lambda value: value > 0),
    (
        ("min_lr", "warmup_lr", "warmup_epochs", "weight_decay", "color_jitter", "mixup", "cutmix", "freeze_epoch"),
        "0 or more",
        lambda value: value >= 0,
    ),
    (("hflip", "reprob", "model_ema_decay"), "from 0 to 1", lambda value: 0 <= value <= 1),
    (("smoothing", "drop_path"), "from 0 to below 1", lambda value: 0 <= value < 1),
    (("scale",), "shares of the picture's area, the smaller first", lambda value: 0 < value[0] <= value[1] <= 1),
    (("ratio",), "ratios above 0, the smaller first", lambda value: 0 < value[0] <= value[1]),
)
