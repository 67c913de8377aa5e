"""Small versions of the figures of masterkey.benchmarks.scripts.hub."""

from hub_cases import publish
from hub_server import HubServer

from masterkey.benchmarks.scripts.fault_runs import Fetched, fault_runs
from masterkey.benchmarks.scripts.hub import MODELS, add_network, fault_job
from masterkey.extract import from_timm


def test_bytes_of_a_real_network(hub, online, offline, tmp_path):
    """Of timm's convnext_tiny at most 2 % leave the server; the second time nothing does."""
    size = add_network(hub, "convnext_tiny", "timm/convnext_tiny.bytes", tmp_path)
    for name in ("timm/convnext_tiny.bytes", "hf://timm/convnext_tiny.bytes/model.safetensors"):
        hub.requests.clear()
        done = online("verify", name)
        assert done.code == 0, done.err
        assert "6,624 filters verified" in done.out
        assert 6624 * 49 * 4 < hub.sent() <= MODELS["convnext_tiny"] * size
        hub.requests.clear()
        assert offline("verify", name).out == done.out
        assert hub.sent() == 0


def test_random_faults(tmp_path):
    """A dozen draws of the 200 runs."""
    found = fault_job(HubServer, tmp_path, runs=12, seed=1000)
    assert found["right"] + found["refused"] == found["runs"] == 12
    assert found["wrong"] == []


def test_a_wrong_bank_is_found_out(hub, online, tmp_path):
    """The judge of those runs sees another bank than the one expected."""
    repo_id = publish(hub, from_timm("test_convnext", pretrained=False))
    banks = [Fetched(repo_id, "model.safetensors", "0" * 64, whole=True)]
    found = fault_runs(hub, online, banks, set(), tmp_path, runs=1, seed=0)
    assert len(found["wrong"]) == 1
