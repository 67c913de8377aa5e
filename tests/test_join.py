"""Banks stacked one after the other: layers, licences, and what cannot be joined."""

from dataclasses import replace

import pytest
from samples import make_bank

from masterkey.bank import Bank, join
from masterkey.errors import PlanError


@pytest.fixture
def bank() -> Bank:
    return make_bank(licence="MIT", base_model="me/net", datasets=("pets",))


def numbers(bank: Bank) -> list[str]:
    return [name.removesuffix(".weight") for name in bank.layers]


def test_join_keeps_stages_and_factors():
    both = make_bank(factor=1 / 3) + make_bank(seed=1)
    assert [layer.stage for layer in both.metadata.layers] == [0, 0, 1, 2] * 2
    assert [layer.factor for layer in both.metadata.layers] == [1 / 3] * 4 + [1.0] * 4
    assert numbers(both.select(stages=[2])) == ["0/stages.2.a", "1/stages.2.a"]


def test_a_join_of_joins(bank):
    nested = bank + (bank + bank)
    assert list(nested.layers)[-1] == "1/1/stages.2.a.weight"
    assert numbers(nested.select(stages=[1])) == ["0/stages.1.a", "1/0/stages.1.a", "1/1/stages.1.a"]


@pytest.mark.parametrize(
    ("licences", "joint"),
    [
        (["MIT", "MIT"], "MIT"),
        (["MIT", "mit", "Apache-2.0"], "Apache-2.0 AND mit"),
        (["MIT", "Apache-2.0"], "Apache-2.0 AND MIT"),
        (["MIT", "CC-BY-NC-4.0", "Apache-2.0", "MIT"], "Apache-2.0 AND CC-BY-NC-4.0 AND MIT"),
        (["MIT", None], "MIT AND unknown"),
        ([None, None], None),
        ([None], None),
        (["MIT"], "MIT"),
        (["MIT OR Apache-2.0"], "MIT OR Apache-2.0"),
        (["MIT OR Apache-2.0", "CC-BY-NC-4.0"], "CC-BY-NC-4.0 AND (MIT OR Apache-2.0)"),
        (["(mit OR apache-2.0)", "MIT OR Apache-2.0"], "MIT OR Apache-2.0"),
        (["MIT AND (ISC OR Zlib)", "Zlib AND MIT"], "(ISC OR Zlib) AND MIT AND Zlib"),
        (["A AND B OR C", "D"], "(A AND B OR C) AND D"),
        (["(A AND (B)) AND C", None], "A AND B AND C AND unknown"),
    ],
)
def test_licences_of_joined_banks(licences, joint):
    assert join([make_bank(licence=licence) for licence in licences]).metadata.licence == joint


def test_a_licence_is_named_once_however_banks_were_joined():
    mit, apache, unknown = (make_bank(licence=licence) for licence in ("MIT", "Apache-2.0", None))
    assert ((mit + apache) + mit).metadata.licence == "Apache-2.0 AND MIT"
    assert ((mit + unknown) + (apache + unknown)).metadata.licence == "Apache-2.0 AND MIT AND unknown"


def test_banks_that_cannot_be_joined(bank):
    with pytest.raises(PlanError, match="only banks of one kind can be joined, not nothing"):
        join([])
    dense = Bank(bank.layers, replace(bank.metadata, kind="dense"))
    with pytest.raises(PlanError, match="not dense and depthwise"):
        bank + dense


def test_banks_are_joined_by_name_too(bank, tmp_path):
    bank.save_pretrained(tmp_path / "kept")
    assert join([bank, str(tmp_path / "kept"), "scale-space-8"]).name == "net + net + scale-space-8"
