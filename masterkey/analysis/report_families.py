"""The page's section on families: shares by layer, model and depth, controls, and the code line beside the models."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..distill.autoencoder import LOSS_EVERY
from .collection import Collection, Grouping
from .controls import CONTROLS
from .families import LABELS, NONE, THRESHOLD, shares
from .findings import FindingLog
from .kernel_families import LEAST, KernelFamilies, find_families
from .kernel_study import KernelStudy
from .page import Column, Picture, Section, Table, Value
from .plots import family_bars, line_plot, png_bytes, shapes_picture
from .report_filters import filters_table
from .report_groups import DRAWN, words
from .stream import LayerInfo

FOLDED = 12  # rows above which a table is shown on demand
_CONTROLS_NOTE = "Controls are made of the very filters of the group: noise of their norms, and their pixels shuffled."
_TRIED = tuple(step / 20 for step in range(12, 20))  # thresholds of the explicit models
_GROUPINGS: tuple[Grouping, ...] = ("model", "bank", "family", "task", "dataset", "decile")
_SHARES = tuple(Column(label.replace(" ", "_"), label, "share") for label in LABELS)
_EXPLAINED = Column("explained", "explained", "share")
_FILTERS = Column("filters", "filters", "count")
_WORDS: dict[Grouping, str] = {"dataset": "data set", "decile": "depth decile", "family": "model family"}


def _beside(column: Column, source: str) -> Column:
    """The column that has a share of a control's filters."""
    return Column(f"{column.key}_{source.replace(' ', '_')}", f"{column.label}, {source}", column.kind)


# what the models explain of controls stands first; family by family they come last, for there are many
_BESIDE = (
    _FILTERS,
    _EXPLAINED,
    *(_beside(_EXPLAINED, source) for source in CONTROLS),
    *_SHARES,
    *(_beside(column, source) for source in CONTROLS for column in _SHARES),
)


def families_section(collection: Collection, studies: Sequence[KernelStudy], degenerate: FindingLog) -> Section:
    """Return what there is to say and see of the families of all filters, kernel by kernel.

    ``degenerate`` says what else was found about them.
    """
    attempts = [(study, find_families(study)) for study in studies]
    found = [families for _, families in attempts if families]
    said = [
        f"The family of a filter is the model of least Bayesian information criterion among Gaussians, differences of "
        f"Gaussians, their derivatives, crosses and deltas, if their cosine is at least {THRESHOLD}. Random filters of "
        "the same norms, and the same filters with their pixels shuffled, show what a share is worth.",
        *(_sentence(study, families) for study, families in attempts),
        *(sentence for families in found for sentence in _not_drawn(collection, families)),
    ]
    content: list[Table | Picture] = [_shares_table(found), _groups_table(collection, found), _layers_table(found)]
    content[1:1] = [picture for families in found for picture in _share_pictures(collection, families)]
    content += [picture for families in found for picture in _line_pictures(families)]
    content += [_line_table(found), _losses_table(found), _thresholds_table(found), filters_table(attempts, degenerate)]
    kept = [part for part in content if isinstance(part, Picture) or part.rows]
    return Section("filter-families", "Families", said, kept)


def _sentence(study: KernelStudy, families: KernelFamilies | None) -> str:
    drawn = study.drawn.sentence
    if families is None:
        why = "the models need 3x3 or more" if min(study.kernel) < LEAST else "all of them are dead or constant"
        return f"{study.size}: {drawn} None has a family: {why}."
    explained = {source: 1 - shares(fits.label)["none"] for source, fits in families.sources.items()}
    said = f"{study.size}: {drawn} "
    if dead := int((~study.alive).sum()):
        said += f"{dead:,} are dead or constant and left out. "
    said += (
        f"{explained['real']:.0%} have a family, {explained['random']:.0%} of random filters and "
        f"{explained['shuffled pixels']:.0%} of those with shuffled pixels."
    )
    if 2 * max(explained["random"], explained["shuffled pixels"]) > explained["real"]:
        said += " So these shares say little: the models fit filters without structure nearly as well."
    for row in families.swept:
        if row["threshold"] == THRESHOLD:
            said += f" {row['neither']:.0%} are explained neither by the models nor by the autoencoder's code line."
    return said if families.line else f"{said} With so few filters no autoencoder is trained."


def _row(label: Tensor) -> dict[str, Value]:
    of = shares(label)
    return {
        "filters": len(label),
        "explained": 1 - of["none"],
        **{column.key: of[column.label] for column in _SHARES},
    }


def _row_beside(labels: Mapping[str, Tensor]) -> dict[str, Value]:
    """The figures of real filters, and beside them those of the controls that were made of them."""
    row = _row(labels["real"])
    for source in CONTROLS:
        control = _row(labels[source])
        row |= {_beside(column, source).key: control[column.key] for column in (_EXPLAINED, *_SHARES)}
    return row


def _shares_table(found: Sequence[KernelFamilies]) -> Table:
    rows: list[dict[str, Value]] = [
        {"kernel": families.study.size, "source": source, **_row(fits.label)}
        for families in found
        for source, fits in families.sources.items()
    ]
    columns = (Column("kernel", "kernel", "text"), Column("source", "filters of", "text"), _FILTERS, _EXPLAINED)
    return Table("family-shares", "Share of filters by family", (*columns, *_SHARES), rows)


def _groups(collection: Collection, families: KernelFamilies) -> dict[Grouping, dict[str, list[int]]]:
    """Models and depth deciles, and every other grouping of two groups or more that differs from those before it."""
    found: dict[Grouping, dict[str, list[int]]] = {}
    for by in _GROUPINGS:
        groups = collection.groups(families.study.drawn.layers, by)
        known = [sorted(other.values()) for other in found.values()]
        if by in ("model", "decile") or (len(groups) > 1 and sorted(groups.values()) not in known):
            found[by] = groups
    return found


def _groups_table(collection: Collection, found: Sequence[KernelFamilies]) -> Table:
    rows: list[dict[str, Value]] = [
        {"kernel": families.study.size, "grouping": _WORDS.get(by, by), "group": group, **_row_beside(labels)}
        for families in found
        for by, groups in _groups(collection, families).items()
        for group, layers in groups.items()
        if len((labels := families.of_layers(layers))["real"])
    ]
    columns = tuple(Column(key, key, "text") for key in ("kernel", "grouping", "group"))
    title = "Share of filters by family, per model and depth decile"
    return Table("family-groups", title, (*columns, *_BESIDE), rows, _CONTROLS_NOTE, folded=len(rows) > FOLDED)


def _layers_table(found: Sequence[KernelFamilies]) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "bank": info.bank,
            "layer": info.name,
            "kernel": families.study.size,
            "depth": info.depth,
            **_row_beside(labels),
        }
        for families in found
        for number, info in enumerate(families.study.drawn.layers)
        if len((labels := families.of_layers([number]))["real"])
    ]
    columns = tuple(Column(key, key, "text") for key in ("bank", "layer", "kernel"))
    return Table(
        "family-layers",
        "Share of filters by family, per layer",
        (*columns, Column("depth", "depth"), *_BESIDE),
        rows,
        "Only filters that were taken and are neither dead nor constant; layers without any are not listed. "
        f"{_CONTROLS_NOTE}",
        folded=len(rows) > FOLDED,
    )


def _share_pictures(collection: Collection, families: KernelFamilies) -> list[Picture]:
    size = families.study.size
    bars = {source: shares(fits.label) for source, fits in families.sources.items()}
    for by, groups in _groups(collection, families).items():
        if 1 < len(groups) <= DRAWN:
            of = {group: families.of_layers(layers)["real"] for group, layers in groups.items()}
            before = "" if by == "decile" else f"{_WORDS.get(by, by)} "
            bars |= {f"{before}{group}": shares(label) for group, label in of.items() if len(label)}
    drawn = [
        Picture(
            f"families-{size}",
            f"Share of {size} filters by family, of all, of controls and by group",
            png_bytes(family_bars(bars, f"Families of {size} filters, controls, and groups")),
        )
    ]
    layers = families.study.drawn.layers
    if 1 < len(layers) <= DRAWN:
        labels = {_layer_name(info, layers): families.of_layers([at])["real"] for at, info in enumerate(layers)}
        bars = {name: shares(label) for name, label in labels.items() if len(label)}
        picture = png_bytes(family_bars(bars, f"Families of {size} filters, layer by layer"))
        drawn.append(Picture(f"families-layers-{size}", f"Share of {size} filters by family in every layer", picture))
    return drawn


def _not_drawn(collection: Collection, families: KernelFamilies) -> list[str]:
    """What to say of groups whose bars could not be read."""
    counts: dict[Grouping, int] = {by: len(groups) for by, groups in _groups(collection, families).items()}
    counts["layer"] = len(families.study.drawn.layers)
    many = [words(by, count) for by, count in counts.items() if count > DRAWN]
    size = families.study.size
    return [f"{size}: no bars for {' and for '.join(many)}; {DRAWN} can be read at most."] if many else []


def _layer_name(info: LayerInfo, layers: Sequence[LayerInfo]) -> str:
    several = len({each.bank for each in layers}) > 1
    return f"{info.bank}: {info.name}" if several else info.name


def _line_pictures(families: KernelFamilies) -> list[Picture]:
    study, line = families.study, families.line
    if line is None or study.line is None:
        return []
    captions = [LABELS[number].replace("derivative ", "derivative\n") for number in line.family.tolist()]
    samples = shapes_picture(
        {"": (line.shapes.view(-1, *study.kernel), captions)}, 10, f"Codes of the autoencoder's line, {study.size}"
    )
    trained = line_plot(_losses(study), families.swept, f"Autoencoder: training, and line against models, {study.size}")
    return [
        Picture(f"family-line-{study.size}", "Training loss, and agreement over thresholds", png_bytes(trained)),
        Picture(f"family-samples-{study.size}", "Shapes along the code line with their families", png_bytes(samples)),
    ]


def _losses(study: KernelStudy) -> list[tuple[int, float]]:
    losses = study.line.losses if study.line else ()
    return [(LOSS_EVERY * (number + 1), loss) for number, loss in enumerate(losses)]


def _line_table(found: Sequence[KernelFamilies]) -> Table:
    rows: list[Mapping[str, Value]] = [
        {"kernel": families.study.size, **row} for families in found for row in families.swept
    ]
    columns = (
        Column("kernel", "kernel", "text"),
        Column("threshold", "cosine threshold"),
        Column("assigned", "assigned by the line", "share"),
        Column("both", "by line and models", "share"),
        Column("neither", "by neither", "share"),
        Column("purity", "purity", "share"),
        Column("agreement", "agreement", "share"),
    )
    note = (
        "Purity: of the filters assigned, those whose label by the models, a family or none, is the most frequent of "
        "their sample. "
        f"Agreement: the same family, of those that both assign. The models keep their threshold of {THRESHOLD}."
    )
    title = "The autoencoder's code line against the models, over cosine thresholds"
    return Table("family-line", title, columns, rows, note, folded=len(rows) > FOLDED)


def _losses_table(found: Sequence[KernelFamilies]) -> Table:
    rows: list[Mapping[str, Value]] = [
        {"kernel": families.study.size, "step": step, "loss": loss}
        for families in found
        for step, loss in _losses(families.study)
    ]
    columns = (Column("kernel", "kernel", "text"), Column("step", "step", "count"), Column("loss", "squared error"))
    note = f"Mean over {LOSS_EVERY} steps, of filters at norm 1."
    return Table("family-losses", "The autoencoder's training loss", columns, rows, note, folded=True)


def _thresholds_table(found: Sequence[KernelFamilies]) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "kernel": families.study.size,
            "source": source,
            "threshold": threshold,
            "explained": float((fits.at(threshold) != NONE).double().mean()),
        }
        for families in found
        for source, fits in families.sources.items()
        for threshold in _TRIED
    ]
    columns = (
        Column("kernel", "kernel", "text"),
        Column("source", "filters of", "text"),
        Column("threshold", "cosine threshold"),
        _EXPLAINED,
    )
    return Table(
        "family-thresholds", "Share explained by the models, over cosine thresholds", columns, rows, folded=True
    )
