"""Every plot is a function that returns a matplotlib figure; none of them shows or saves anything."""

from .drift import component_box, decile_box, drift_map
from .families import family_bars, line_plot
from .keys import explained_over_keys, shapes_picture
from .quality import quality_over_depth
from .scatter import phenotype_scatter
from .structure import basis_picture, ridges
from .style import png_bytes

__all__ = [
    "basis_picture",
    "component_box",
    "decile_box",
    "drift_map",
    "explained_over_keys",
    "family_bars",
    "line_plot",
    "phenotype_scatter",
    "png_bytes",
    "quality_over_depth",
    "ridges",
    "shapes_picture",
]
