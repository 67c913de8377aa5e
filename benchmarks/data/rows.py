"""A part of a data set as rows of the pictures that are on disk already."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class PictureRows:
    """Some rows, int64 (n,), of pictures, uint8 (m, s, s, 3): read when they are asked for, and never copied whole.

    Indexed, and turned into an array, as the array of these rows would be.
    """

    pictures: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, s, s, 3)."""
        return (len(self.rows), *self.pictures.shape[1:])

    @property
    def nbytes(self) -> int:
        """What these rows would take as an array."""
        return len(self.rows) * int(self.pictures[:1].nbytes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.pictures[self.rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows that lie apart cannot become an array without a copy")
        return np.asarray(self.pictures[self.rows], dtype)


# whole splits, and parts of them
PictureArray = np.ndarray | PictureRows
