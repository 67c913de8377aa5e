"""What the analysis takes for filters: banks, paths, names and arrays, all alike."""

import numpy as np
import pytest
import torch
from samples import make_bank

from masterkey.analysis.drift import drift_between
from masterkey.analysis.families import classify
from masterkey.analysis.quality import assess, gate
from masterkey.analysis.scale_space_fit import fit_scale_space
from masterkey.analysis.sources import as_filters, as_planes
from masterkey.errors import BankFormatError, MasterkeyError, UnknownNameError


@pytest.fixture
def bank():
    return make_bank().select(kernel=3)


def forms(bank, folder):
    """One bank in every form that is natural to pass."""
    return [bank, str(folder), folder, str(folder / "model.safetensors"), folder / "model.safetensors"]


def test_a_bank_by_path_is_assessed_and_compared_as_it_is_in_memory(bank, tmp_path):
    bank.save_pretrained(tmp_path)
    for each in forms(bank, tmp_path):
        assert assess(each) == assess(bank)
        assert gate(each).passed
        assert drift_between(each, bank)[3, 3].total.max() == 0
    assert [layer.kernel for layer in assess("scale-space-8")] == [(7, 7)]


def test_fits_take_what_holds_filters(bank, tmp_path):
    bank.save_pretrained(tmp_path)
    planes = torch.cat([layer[:, 0] for layer in bank.layers.values()])
    families, models = classify(planes), fit_scale_space(planes)
    for each in (*forms(bank, tmp_path), planes[:, None], planes.numpy(), planes[:, None].numpy().astype(np.float64)):
        assert torch.equal(as_planes(each), planes)
        assert torch.equal(classify(each).cosines, families.cosines)
        assert torch.equal(fit_scale_space(each).sigma_x, models.sigma_x)
    dense = planes.view(3, 2, 3, 3)
    assert torch.equal(as_planes(dense), planes)


def test_what_holds_no_filters_is_refused_in_a_sentence(tmp_path):
    for function in (assess, classify, fit_scale_space):
        with pytest.raises(UnknownNameError, match="no-such-bank"):
            function("no-such-bank")
        with pytest.raises(MasterkeyError, match=r"an array .* not list"):
            function([[1.0, 2.0]])
        with pytest.raises(MasterkeyError, match=r"shape \(n, kh, kw\).* not \(5,\)"):
            function(torch.zeros(5))
    for function in (classify, fit_scale_space):
        with pytest.raises(MasterkeyError, match="has filters of 3x3, 7x7, and this takes one size at a time"):
            function(make_bank())
    (tmp_path / "text.safetensors").write_text("no bank")
    with pytest.raises(BankFormatError, match=r"text\.safetensors"):
        as_filters(tmp_path / "text.safetensors")
    with pytest.raises(BankFormatError, match=r"model\.safetensors"):
        as_filters(tmp_path)


def test_arrays_that_are_read_backwards_or_of_another_byte_order_are_taken(bank):
    planes = as_planes(bank).numpy()
    for each in (planes[:, ::-1], planes.astype(">f4")[:, ::-1], planes[:, ::-1].astype(np.float64)):
        assert torch.equal(as_planes(each), torch.from_numpy(planes).flip(1))


@pytest.mark.parametrize("dtype", [complex, bool, object, str])
def test_arrays_of_what_is_no_real_number_are_refused(dtype):
    with pytest.raises(MasterkeyError, match="filters are real numbers, not an array of"):
        as_filters(np.zeros((2, 3, 3), dtype))
    if dtype in (complex, bool):
        with pytest.raises(MasterkeyError, match=r"not an array of torch\."):
            as_filters(torch.zeros(2, 3, 3).to(torch.complex64 if dtype is complex else torch.bool))
