"""A run, described completely: equal descriptions are the same run, and give the same ``metrics``."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from masterkey.errors import MasterkeyError
from masterkey.metadata import canonical_json
from masterkey.rules import DEFAULT_KERNEL, DEFAULT_POLICY, DEFAULT_SCALE

# seconds of a run between two checkpoints: the most that a kill costs
CHECKPOINT_EVERY = 120.0


class BenchmarkError(MasterkeyError):
    """An experiment, data set or result folder that cannot be used as it is."""


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, at which size.

    ``evaluate`` is ``validation`` (a share ``validation`` of train, carved out by ``split_seed``; for every choice)
    or ``test`` (all of train is learnt from; for the final figure only). ``view`` keeps a part of the classes
    (``man-made``, ``natural``). ``per_class`` keeps at most so many pictures of a class, in either part. Pictures are
    stored at ``pixels / crop_pct`` and evaluated on their centre.
    """

    name: str
    pixels: int = 64
    crop_pct: float = 1.0
    evaluate: str = "test"
    validation: float = 0.2
    split_seed: int = 0
    view: str | None = None
    per_class: int | None = None


@dataclass(frozen=True)
class TrainConfig:
    """The recipe, by timm's option names; epochs and ``warmup_epochs`` are whole passes over train.

    ``freeze_epoch``: the bank's filters learn before this epoch and are frozen from it on.
    ``val_interval``: epochs from one evaluation to the next; the last epoch is always evaluated.
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
        return plain

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the run; anything that changes its outcome changes them."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()[:12]


def run_config(raw: Mapping[str, Any]) -> RunConfig:
    """Build a run from plain data (TOML or JSON).

    Raises:
        BenchmarkError: a field that is unknown or missing; near names are not guessed, the known ones listed.
    """
    parts = dict(raw)
    arm = dict(parts.pop("arm"))
    if arm.get("bank") is not None:
        rules = {"policy": DEFAULT_POLICY, "kernel": DEFAULT_KERNEL, "scale": DEFAULT_SCALE, "freeze": True}
        arm["inject"] = {**rules, **arm.get("inject", {})}
    arm["steps"] = tuple((str(op), dict(arguments)) for op, arguments in arm.get("steps", ()))
    train = dict(parts.pop("train", {}))
    for key in ("scale", "ratio"):
        if key in train:
            train[key] = tuple(train[key])
    return _make(
        RunConfig,
        {
            **parts,
            "data": _make(DataConfig, parts.pop("data")),
            "arm": _make(ArmConfig, arm),
            "train": _make(TrainConfig, train),
        },
    )


_Config = TypeVar("_Config", DataConfig, TrainConfig, ArmConfig, RunConfig)


def _make(kind: type[_Config], raw: Mapping[str, Any]) -> _Config:
    known = [item.name for item in fields(kind)]
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise BenchmarkError(f"{kind.__name__} has no {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        return kind(**raw)
    except TypeError as error:
        raise BenchmarkError(f"{kind.__name__}: {error}") from error
