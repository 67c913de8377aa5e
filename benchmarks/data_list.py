"""The data sets that the experiments use, with their splits: Table 2 of arXiv:2412.16751, and what stands in for it."""

from dataclasses import asdict, dataclass
from typing import Any

from .config import BenchmarkError
from .data.catalogue import CATALOGUE, HubSet, resolve
from .data.hub import find_source
from .data.source import roles
from .data.store import Store, cache_folder
from .experiment import SIZES, experiment_names, load_experiment

_NOWHERE = "not here"


@dataclass(frozen=True)
class ListedData:
    """A data set: ``train`` are the pictures that are learnt from for the final figure, ``test`` those judged on.

    ``place`` is a folder, a repository on the Hub, or ``not here``. Of a folder the figures are None until it was used
    once; ``test`` is None, and its pictures in ``train``, where the set has no such part.
    """

    name: str
    classes: int | None
    train: int | None
    test: int | None
    place: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def list_data() -> list[ListedData]:
    """Return the data sets of the catalogue and of all experiments, those that learn from most pictures first.

    Nothing is fetched or decoded: of the Hub's sets the figures are those of their publications, which are checked when
    a set is loaded; of a folder they are what was found when it was decoded.
    """
    experiments = [load_experiment(name, size) for name in experiment_names() for size in SIZES]
    named = {str(data) for experiment in experiments for data in experiment.data_names}
    listed = [_listed(name) for name in sorted({*CATALOGUE, *named})]
    # one folder may be meant by two names: tiny-imagenet, tiny_imagenet
    found = {data.name if data.place == _NOWHERE else data.place: data for data in listed}
    return sorted(found.values(), key=lambda data: (-(data.train or 0), data.name))


def _listed(name: str) -> ListedData:
    try:
        where = resolve(name)
    except BenchmarkError:
        return ListedData(name, None, None, None, _NOWHERE)
    if isinstance(where, HubSet):
        classes, train, test = where.size or (None, None, None)
        return ListedData(name, classes, train, test, f"{where.repo} on the Hub")
    try:
        source = find_source(str(where))
    except BenchmarkError as error:
        return ListedData(name, None, None, None, f"refused: {error}")
    layout = Store(cache_folder(), source.name, source.fingerprint).layout()
    if layout is None:
        return ListedData(name, None, None, None, str(where))
    part = roles(source, layout.splits)
    train = sum(layout.splits[split] for split in (part.train, part.validation) if split)
    test = layout.splits[part.test] if part.test else None
    return ListedData(name, len(layout.classes), train, test, str(where))
