"""Every plot is a function that returns a matplotlib figure; none of them shows or saves anything."""

from .clusterability import clusterability_scatter
from .drift import component_box, decile_box, drift_map
from .families import family_bars, line_plot
from .formation import formation_curves, reproducibility_boxes
from .formation_ridges import formation_ridges
from .keys import explained_over_keys, shapes_picture
from .quality import quality_over_depth
from .scatter import phenotype_scatter
from .structure import basis_picture, ridges
from .style import png_bytes

__all__ = [
    "basis_picture",
    "clusterability_scatter",
    "component_box",
    "decile_box",
    "drift_map",
    "explained_over_keys",
    "family_bars",
    "formation_curves",
    "formation_ridges",
    "line_plot",
    "phenotype_scatter",
    "png_bytes",
    "quality_over_depth",
    "reproducibility_boxes",
    "ridges",
    "shapes_picture",
]
