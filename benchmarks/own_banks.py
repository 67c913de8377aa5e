"""The networks and banks that an experiment names: looked for before the first run, not by every run on its own."""

from pathlib import Path

from masterkey.bank import Bank
from masterkey.create import require_timm_name
from masterkey.errors import NothingMeantError
from masterkey.metadata import canonical_json
from masterkey.names import BuiltinName, PathName, parse_name

from .arms import data_path, load_arm_bank
from .config import ArmConfig, BenchmarkError
from .data.catalogue import resolve
from .experiment import Experiment
from .store import ResultStore
from .sweep import expected_runs


def check_names(experiment: Experiment) -> None:
    """See that networks, banks and the data of sources are known by their names; fetch nothing.

    A checkpoint that is not at hand fails the runs that take it, and no others.

    Raises:
        MasterkeyError: an unknown name; near names are given. Or a folder that is no bank.
    """
    networks, data = experiment.raw.get("networks", {}), experiment.raw.get("data", {})
    models = list(experiment.models)
    for arm in experiment.arms:
        for text in (str(arm[key]) for key in ("bank", "teacher") if arm.get(key)):
            if text.startswith("scratch:"):
                source, _, model = text.removeprefix("scratch:").partition("@")
                models += [model] if model else []
                if source:
                    resolve(str(data.get(source, {}).get("name", source)))
            elif text != "selffer" and not text.startswith("checkpoint:"):
                meant = parse_name(text)
                if isinstance(meant, PathName) and not meant.path.exists():
                    raise BenchmarkError(
                        f"arm {str(arm['name'])!r:.80}: the bank {str(meant.path)!r:.300} does not exist"
                    )
                if isinstance(meant, PathName):
                    Bank.from_pretrained(meant.path)
    for model in dict.fromkeys(models):
        require_timm_name(str(networks.get(model, {}).get("name", model)))


def check_banks(experiment: Experiment, store: ResultStore) -> None:
    """See that finished runs took the filters that their banks' names and files stand for now.

    A run is named by its bank's name, so one that has changed would go on with the figures of the old one.

    Raises:
        BenchmarkError: a bank holds other filters since.
        MasterkeyError: a bank that is here cannot be read.
    """
    now: dict[str, str | None] = {}
    for run in expected_runs(experiment, store):
        arm = run.config.arm
        result = store.read(run.config.id) if _is_here(arm) else None
        if result is None:
            continue
        key = canonical_json([arm.bank, arm.kind, list(arm.steps)])
        if key not in now:
            now[key] = _sha256(arm, store)
        if now[key] is not None and result["metrics"]["bank_sha256"] != now[key]:
            raise BenchmarkError(
                f"the filters of {arm.bank} are not those that run {run.config.id} took: their figures cannot stand "
                "side by side; give the bank another name, or another folder with --results, or bring the filters back"
            )


def _sha256(arm: ArmConfig, store: ResultStore) -> str | None:
    """Return the hash of an arm's filters; None of a computed bank that has some for certain networks alone."""
    try:
        return load_arm_bank(arm, store).sha256
    except NothingMeantError:
        return None


def _is_here(arm: ArmConfig) -> bool:
    """Whether an arm's filters are those of a file or of a rule on this machine."""
    if arm.bank is None or arm.bank.startswith("run:"):
        return False
    if arm.bank.startswith("checkpoint:"):
        return data_path(arm.bank.removeprefix("checkpoint:")).exists()
    return not (arm.bank == "random" and arm.kind != "depthwise") and _is_local(arm.bank)


def _is_local(name: str | Path) -> bool:
    meant = parse_name(name)
    if isinstance(meant, BuiltinName):
        return meant.recipe.rule != "extracted" and (meant.of is None or _is_local(meant.of))
    return isinstance(meant, PathName)
