"""Pictures by the batch: the same bytes from an array and from rows of one."""

import numpy as np
import pytest
import torch

from masterkey.benchmarks.data.rows import PictureRows
from masterkey.benchmarks.feed import Feed, fit

PICTURES = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
ROWS = np.array([1, 4, 7, 8, 12, 19])


def test_rows_are_as_the_array_of_them():
    part, copy = PictureRows(PICTURES, ROWS), PICTURES[ROWS]
    assert (part.shape, part.nbytes, len(part)) == (copy.shape, copy.nbytes, len(copy))
    for index in (2, -1, slice(1, 4), slice(None), [5, 0, 0], ROWS < 8):
        assert np.array_equal(part[index], copy[index])
    assert np.array_equal(np.asarray(part), copy) and np.asarray(part, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        np.array(part, copy=False)
    with pytest.raises(IndexError):
        part[6]


@pytest.mark.parametrize("resident", [True, False])
def test_batches_are_the_same_from_rows_and_from_their_copy(resident):
    device = torch.device("cpu")
    part, copy = (
        Feed.of(images, device, resident=resident) for images in (PictureRows(PICTURES, ROWS), PICTURES[ROWS])
    )
    for rows in ([0, 5, 2], [3]):
        assert torch.equal(part.take(torch.tensor(rows)), copy.take(torch.tensor(rows)))
    assert torch.equal(part.part(1, 5), copy.part(1, 5)) and part.part(2, 4).dtype == torch.uint8
    # nothing is copied whole: the rows' feed reads from the very memory of all pictures
    assert part.images.data_ptr() == PICTURES.ctypes.data and fit(device, PictureRows(PICTURES, ROWS))
