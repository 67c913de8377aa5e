"""Filters out of checkpoints behind URLs: what is read of them, and what is refused."""

import io
import json
import zipfile

import pytest
import torch
from hub_cases import filters, state_dict, torch_file
from safetensors.torch import save
from samples import small_bank

from masterkey.bank import Bank
from masterkey.errors import BankFormatError, CheckpointError, HubError
from masterkey.format import encode
from masterkey.hub.ranges import GAP, RangeReader, merged
from masterkey.hub.remote_file import UrlFile

STATE = state_dict()
FILTERS = filters(STATE)
SAFE = save(STATE)
ZIPPED = torch_file({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in STATE.items()}})
LEGACY = torch_file(STATE, legacy=True)


def check(bank: Bank) -> None:
    assert list(bank.layers) == list(FILTERS)
    assert all(torch.equal(bank.layers[name], FILTERS[name]) for name in FILTERS)


def test_ranges_are_merged():
    assert merged([]) == []
    assert merged([(0, 10), (10 + GAP - 1, 10 + GAP)]) == [(0, 10 + GAP)]
    assert merged([(0, 10), (10 + GAP, 11 + GAP)]) == [(0, 10), (10 + GAP, 11 + GAP)]
    assert merged([(50, 60), (0, 100), (5, 7)], gap=1) == [(0, 100)]


@pytest.mark.parametrize(("file", "data"), [("a.safetensors", SAFE), ("a.pth", ZIPPED)])
def test_only_the_filters_are_read(hub, file, data):
    check(Bank.from_checkpoint(hub.put(file, data)))
    log = hub.log(file)
    assert [request.status for request in log] == [206] * len(log)
    wanted = sum(4 * value.numel() for value in FILTERS.values())
    assert wanted <= hub.sent(file) < wanted + 3 * 64 * 1024
    assert hub.sent(file) < len(data) / 2
    assert len(log) == 1 + 3 if file == "a.safetensors" else 2 + 3


def test_neighbours_are_read_in_one_request(hub):
    state = {f"stages.{i}.dw.weight": torch.randn(2000, 1, 3, 3) for i in range(4)}
    state["z.weight"] = torch.randn(1000, 1000)
    bank = Bank.from_checkpoint(hub.put("near.safetensors", save(state)))
    assert len(bank.layers) == 4
    assert len(hub.log("near.safetensors")) == 2


def test_a_url_is_named_without_its_secrets():
    assert UrlFile("https://me:secret@host.org:8/a/b.pth?token=1#x").name == "https://host.org:8/a/b.pth"


def test_a_bank_behind_a_url_is_that_bank(hub):
    bank = small_bank()
    data = encode(bank.layers, bank.metadata)
    for name in (url := hub.put("sub/model.safetensors", data), f"{url}?download=1"):
        found = Bank.from_pretrained(name)
        assert (found.sha256, found.metadata) == (bank.sha256, bank.metadata)
    broken = hub.put("broken.safetensors", data[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(BankFormatError, match=r"files/broken\.safetensors"):
        Bank.from_pretrained(broken)


def test_a_bank_behind_a_url_stays_what_it_says(hub):
    bank = small_bank()
    url = hub.put("sub/model.safetensors", encode(bank.layers, bank.metadata))
    assert Bank.from_checkpoint(url, name="other", licence="MIT AND Apache-2.0").sha256 == bank.sha256
    with pytest.raises(CheckpointError, match="is a bank of depthwise filters, so there are no dense ones in it"):
        Bank.from_checkpoint(url, "dense")
    with pytest.raises(CheckpointError, match=r"is under MIT as it says itself, which Apache-2\.0 would not keep"):
        Bank.from_checkpoint(url, licence="Apache-2.0")


def test_metadata_of_a_url(hub):
    url = hub.put("sub/net.pth", ZIPPED)
    about = Bank.from_checkpoint(f"{url}?secret=1", licence="MIT", name="mine").metadata
    assert (about.name, about.licence, about.source.kind, about.source.id) == ("mine", "MIT", "url", url)
    assert (about.source.file, about.source.entry, about.order) == ("net.pth", "state_dict", "registration")
    assert (about.source.sha256_announced, about.source.sha256_verified) == (None, None)
    assert Bank.from_checkpoint(hub.put("sub/net.safetensors", SAFE)).metadata.order == "natural"


@pytest.mark.parametrize(("file", "data"), [("old.pth", LEGACY), ("keys.txt", b"Filter 1:\n1 2\n3 4\n")])
def test_what_has_no_parts_is_read_whole(hub, file, data):
    bank = Bank.from_checkpoint(hub.put(file, data))
    assert bank.metadata.source.sha256_verified is not None
    assert len(bank) == (192 if file == "old.pth" else 1)


@pytest.mark.parametrize(("file", "data"), [("whole.safetensors", SAFE), ("whole.pth", ZIPPED)])
def test_a_server_without_ranges(hub, file, data, caplog):
    hub.fault(file, "no range")
    bank = Bank.from_checkpoint(hub.put(file, data))
    check(bank)
    assert bank.metadata.source.sha256_verified is not None
    assert "does not send parts of files; the whole file is downloaded" in caplog.text
    assert [request.status for request in hub.log(file)] == [200, 200]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64], ids=lambda dtype: str(dtype).removeprefix("torch.")
)
def test_other_types_of_numbers(hub, dtype):
    state = {name: value.to(dtype) for name, value in STATE.items()}
    state["stages.1.dw.weight"] = state["stages.1.dw.weight"].float()
    for file, data in (("t.safetensors", save(state)), ("t.pth", torch_file(state))):
        bank = Bank.from_checkpoint(hub.put(file, data))
        assert all(torch.equal(bank.layers[name], state[name].float()) for name in FILTERS)


def test_views_and_shared_storages(hub):
    base = torch.randn(8, 1, 5, 5)
    state = {"a.weight": base, "b.weight": base, "c.weight": base[2:6], "d.weight": base.transpose(2, 3)}
    bank = Bank.from_checkpoint(hub.put("views.pth", torch_file(state)))
    assert all(torch.equal(bank.layers[name], value) for name, value in state.items())


def test_a_long_header(hub):
    state = {f"{i:04}.{'x' * 200}.weight": torch.randn(2, 1, 3, 3) for i in range(500)}
    data = save(state)
    assert int.from_bytes(data[:8], "little") > 64 * 1024
    bank = Bank.from_checkpoint(hub.put("long.safetensors", data))
    assert len(bank.layers) == 500


def test_a_file_that_is_replaced_is_read_again(hub):
    url = hub.put("changing.safetensors", SAFE)
    hub.fault("changing.safetensors", "changed", skip=2, times=1)
    check(Bank.from_checkpoint(url))
    hub.fault("changing.safetensors", "changed", skip=1)
    with pytest.raises(HubError, match="was replaced while it was read"):
        Bank.from_checkpoint(url)


@pytest.mark.parametrize(
    ("kind", "about", "words"),
    [
        ("html", {}, "a web page came instead"),
        ("status", {"code": 404}, "there is no such file"),
        ("status", {"code": 403}, "may not be read"),
        ("status", {"code": 418}, "the server refused it"),
        ("redirect loop", {}, "too many redirects"),
        ("wrong range", {}, "the server sent bytes"),
        ("cut", {"skip": 1}, "the connection broke"),
        ("wrong size", {"skip": 1}, "promises|cut short"),
    ],
)
@pytest.mark.parametrize(("file", "data"), [("f.safetensors", SAFE), ("f.pth", ZIPPED)])
def test_faults_are_one_sentence(hub, file, data, kind, about, words):
    url = hub.put(file, data)
    hub.fault(file, kind, **about)
    with pytest.raises((HubError, CheckpointError), match=words) as caught:
        Bank.from_checkpoint(url)
    sentence = str(caught.value)
    assert url in sentence
    assert sentence.isprintable()
    assert len(sentence) < 400


@pytest.mark.parametrize("kind", ["cut", "status"])
def test_a_fault_that_passes_does_no_harm(hub, kind):
    hub.fault("p.safetensors", kind, times=2, headers={"Retry-After": "0"})
    check(Bank.from_checkpoint(hub.put("p.safetensors", SAFE)))


def test_a_busy_server_is_asked_four_times(hub):
    hub.fault("busy.safetensors", "status", code=429)
    with pytest.raises(HubError, match=r"asks for fewer requests \(429\)"):
        Bank.from_checkpoint(hub.put("busy.safetensors", SAFE))
    assert len(hub.log("busy.safetensors")) == 4


def test_a_name_that_no_file_can_have_is_asked_for_all_the_same(hub):
    with pytest.raises(HubError, match=r"a%00\.txt"):
        Bank.from_checkpoint(hub.put("a.txt", b"").replace("a.txt", "a%00.txt"))


def test_no_server(hub):
    with pytest.raises(HubError, match="cannot be reached"):
        Bank.from_checkpoint("http://127.0.0.1:9/a.safetensors")


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        ("x.onnx", b"", "unknown kind of checkpoint '.onnx'"),
        ("x", b"", "unknown kind of checkpoint ''"),
        ("empty.safetensors", b"", "is empty"),
        ("empty.pth", b"", "is empty"),
        ("page.safetensors", b"<!DOCTYPE html><html>" + b" " * 600, "a web page"),
        ("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        ("torch.safetensors", ZIPPED, "a torch checkpoint or another pickle"),
        ("cut.safetensors", SAFE[:-7], "its header promises"),
        ("none.safetensors", save({"a.weight": torch.ones(3, 3)}), "holds 1 tensors, but no depthwise filters"),
        ("nan.safetensors", save({"a.weight": torch.full((2, 1, 3, 3), torch.nan)}), "NaN or infinite"),
        ("page.pth", b"<!DOCTYPE html><html>" + b" " * 600, "a web page"),
        ("cut.pth", ZIPPED[: len(ZIPPED) // 2], "is cut short or damaged"),
        ("evil.pth", torch_file({"a": json.JSONDecoder}), "was refused, none of it was run"),
        ("none.pth", torch_file({"epoch": 1}), "holds no state dict"),
        ("nan.pth", torch_file({"a.weight": torch.full((2, 1, 3, 3), torch.nan)}), "NaN or infinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_none(hub, file, data, words):
    url = hub.put(file, data)
    with pytest.raises((CheckpointError, BankFormatError, HubError), match=words) as caught:
        Bank.from_checkpoint(url)
    assert file in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_unknown_kind_asks_nobody(hub):
    url = hub.put("kinds.safetensors", SAFE)
    with pytest.raises(CheckpointError, match="unknown kind"):
        Bank.from_checkpoint(url, "deep")
    assert hub.requests == []


def test_a_storage_that_lies(hub):
    """A pickle that claims more bytes than its record has gets no memory for them."""
    source = zipfile.ZipFile(io.BytesIO(torch_file({"a.weight": torch.ones(4, 1, 3, 3)})))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, data.replace(b"K$", b"K%") if name.endswith(".pkl") else data)  # 36 -> 37 numbers
    with pytest.raises(CheckpointError, match="lies in a storage of 148 bytes, the archive has 144"):
        Bank.from_checkpoint(hub.put("lying.pth", target.getvalue()))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_torch_did_not_pack(hub, compression):
    """Records need not be where torch aligns them; compressed ones torch does not read in place either."""
    source = zipfile.ZipFile(io.BytesIO(ZIPPED))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name in source.namelist():
            if not name.endswith((".format_version", ".storage_alignment")):
                archive.writestr(name, source.read(name))
    url = hub.put("packed.pth", target.getvalue())
    if compression == zipfile.ZIP_STORED:
        check(Bank.from_checkpoint(url))
    else:
        with pytest.raises(CheckpointError, match="is a compressed archive"):
            Bank.from_checkpoint(url)
    assert {request.status for request in hub.log("packed.pth")} == {206}


def test_a_token_is_not_shown_to_other_hosts(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    check(Bank.from_checkpoint(hub.put("secret.safetensors", SAFE), token="hf_reader"))
    assert {request.token for request in hub.requests} == {None}


def test_reader_keeps_the_order_asked_for(hub):
    data = bytes(range(256)) * 4096
    reader = RangeReader(hub.put("order.bin", data), {}, "order")
    spans = [(900_000, 900_010), (5, 9), (300_000, 300_001), (len(data) - 3, len(data) + 100)]
    assert reader.read(spans) == [data[begin:end] for begin, end in spans]
    assert reader.size == len(data)
