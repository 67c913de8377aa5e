"""Banks by names of the Hub: what they are, what is asked for, and that the second time nothing is."""

import json
from dataclasses import replace

import pytest
import torch
from hub_cases import add_timm, filters, new_repo, publish, small_timm, state_dict, torch_file
from hub_server import card
from safetensors.torch import save
from samples import make_bank, small_bank

from masterkey.bank import Bank
from masterkey.benchmarks.scripts.hub import add_network
from masterkey.depthwise import find_layers
from masterkey.errors import UnknownNameError
from masterkey.extract import from_model
from masterkey.hub.repository import licence_of
from masterkey.metadata import Source

STATE = state_dict()
CARD = card(license="cc-by-nc-4.0", datasets=["imagenet-1k", "imagenet-22k"])


def loaded(worker, code: str, folder) -> Bank:
    """Run code that leaves a bank in ``bank`` in a worker, and return it."""
    done = worker.python(f"from masterkey import Bank\n{code}\nbank.save_pretrained({str(folder)!r})")
    assert done.code == 0, done.err
    return Bank.from_pretrained(folder)


def facts(done) -> dict:
    assert done.code == 0, done.err
    return json.loads(done.out)


# -- org/name ----------------------------------------------------------------------------------------------


def test_a_published_bank(hub, online, tmp_path):
    bank = small_bank()
    repo_id = publish(hub, bank)
    found = loaded(online, f"bank = Bank.from_pretrained({repo_id!r})", tmp_path)
    assert (found.sha256, found.metadata) == (bank.sha256, bank.metadata)
    assert len(hub.log(repo_id, "GET")) == 2, "what the repository is, and the bank"


def test_the_second_time_one_question_and_with_a_commit_none(hub, online, offline):
    repo_id = publish(hub, small_bank())
    commit = hub.store.repositories[repo_id].refs["main"]
    assert online("download", repo_id).code == 0
    hub.requests.clear()
    assert online("verify", repo_id).code == 0
    assert [(request.method, request.path) for request in hub.requests] == [("GET", f"/api/models/{repo_id}")]
    hub.requests.clear()
    for worker, arguments in (
        (online, ["verify", f"{repo_id}@{commit}"]),
        (online, ["verify", repo_id, "--revision", commit]),
        (online, ["verify", repo_id, "--local-files-only"]),
        (offline, ["verify", repo_id]),
    ):
        assert worker(*arguments).code == 0
    assert hub.requests == []


def test_what_another_program_has_fetched(hub, online, offline):
    repo_id = publish(hub, small_bank())
    fetch = f"from huggingface_hub import hf_hub_download\nhf_hub_download({repo_id!r}, 'model.safetensors')"
    assert online.python(fetch).code == 0
    assert offline("verify", repo_id).code == 0
    hub.requests.clear()
    assert online("verify", repo_id).code == 0
    assert len(hub.requests) == 1


def test_revisions(hub, online, tmp_path):
    first, second = small_bank(0), small_bank(1)
    repo_id = publish(hub, first)
    repository = hub.store.repositories[repo_id]
    repository.refs["v1"] = repository.refs["main"]
    publish(hub, second, repo_id)
    for name, revision, bank in (
        (repo_id, None, second),
        (repo_id, "v1", first),
        (f"{repo_id}@v1", None, first),
        (repo_id, repository.refs["v1"], first),
        (repo_id, repository.refs["v1"][:10], first),
        (repo_id, "main", second),
    ):
        found = loaded(online, f"bank = Bank.from_pretrained({name!r}, revision={revision!r})", tmp_path / "b")
        assert found.sha256 == bank.sha256, (name, revision)
    done = online("info", repo_id, "--revision", "v2")
    assert (done.code, done.err) == (
        1,
        f"masterkey: {repo_id}@v2: the repository is there, but it has no such revision\n",
    )


def test_a_new_commit_is_seen(hub, online, offline):
    repo_id = publish(hub, small_bank(0))
    assert facts(online("info", repo_id, "--json"))["sha256"] == small_bank(0).sha256
    publish(hub, small_bank(1), repo_id)
    assert facts(offline("info", repo_id, "--json"))["sha256"] == small_bank(0).sha256
    assert facts(online("info", repo_id, "--json"))["sha256"] == small_bank(1).sha256
    assert facts(offline("info", repo_id, "--json"))["sha256"] == small_bank(1).sha256


def test_a_cache_of_ones_own(hub, online, tmp_path):
    repo_id, _ = add_timm(hub)
    published = publish(hub, small_bank())
    for name in (repo_id, published):
        code = f"bank = Bank.from_pretrained({name!r}, cache_dir={str(tmp_path / 'own')!r}"
        first = loaded(online, f"{code})", tmp_path / "a")
        hub.requests.clear()
        assert loaded(online, f"{code}, local_files_only=True)", tmp_path / "b").sha256 == first.sha256
        assert hub.requests == []
        done = online("info", name, "--local-files-only")
        assert (done.code, done.out) == (1, "")
        assert f"{name} is not in the cache, and only local files were asked for" in done.err


def test_a_checkpoint_is_no_bank(hub, online):
    repo_id = new_repo()
    hub.add(repo_id, {"model.safetensors": save(STATE)})
    done = online("info", repo_id)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{repo_id} is no bank" in done.err
    assert f"hf://{repo_id}/model.safetensors" in done.err


def test_a_large_checkpoint_is_refused_before_it_is_downloaded(hub, online):
    repo_id = new_repo()
    hub.add(repo_id, {"model.safetensors": save({**STATE, "large.weight": torch.zeros(5_000_000)})})
    done = online("info", repo_id)
    assert f"{repo_id} is no bank" in done.err
    assert 0 < hub.sent("model.safetensors") <= 64 * 1024


def test_a_repository_without_weights(hub, online):
    repo_id = new_repo()
    hub.add(repo_id, {"README.md": CARD})
    assert f"{repo_id} is no bank: it holds no model.safetensors" in online("info", repo_id).err


# -- hf://org/repo/file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "sub/net.pth"])
def test_a_checkpoint_on_the_hub(hub, online, offline, tmp_path, file):
    repo_id = new_repo()
    data = save(STATE) if file.endswith("safetensors") else torch_file(STATE)
    commit = hub.add(repo_id, {file: data, "README.md": CARD})
    found = loaded(online, f"bank = Bank.from_pretrained('hf://{repo_id}/{file}')", tmp_path / "a")
    assert all(torch.equal(found.layers[name], value) for name, value in filters(STATE).items())
    assert len(found.layers) == len(filters(STATE))
    about = found.metadata
    blob = hub.store.repositories[repo_id].commits[commit][file]
    assert about.source == Source("hub", repo_id, commit, file, sha256_announced=blob.sha256)
    assert (about.name, about.base_model) == ("net" if "net" in file else repo_id.split("/")[1], repo_id)
    assert (about.licence, about.datasets) == ("cc-by-nc-4.0", ("imagenet-1k", "imagenet-22k"))
    hub.requests.clear()
    again = loaded(offline, f"bank = Bank.from_checkpoint('hf://{repo_id}/{file}')", tmp_path / "b")
    assert (again.metadata, again.sha256) == (about, found.sha256)
    assert hub.requests == []


def test_a_url_of_the_hub_is_a_file_of_a_repository(hub, online, tmp_path):
    repo_id = new_repo()
    commit = hub.add(repo_id, {"a b.safetensors": save(STATE)})
    url = f"{hub.endpoint}/{repo_id}/resolve/main/a%20b.safetensors"
    found = loaded(online, f"bank = Bank.from_checkpoint({url!r}, licence='MIT')", tmp_path)
    assert (found.metadata.source.id, found.metadata.source.revision) == (repo_id, commit)
    assert (found.name, found.metadata.licence) == ("a b", "MIT")


def test_a_sharded_checkpoint(hub, online, tmp_path):
    shards: dict = {f"model-0000{i + 1}-of-00003.safetensors": {} for i in range(3)}
    for i, (name, value) in enumerate(STATE.items()):
        list(shards.values())[i % 3][name] = value
    index = {"weight_map": {name: shard for shard, state in shards.items() for name in state}}
    repo_id = new_repo()
    files = {shard: save(state) for shard, state in shards.items()}
    hub.add(repo_id, {**files, "model.safetensors.index.json": json.dumps(index).encode()})
    name = f"hf://{repo_id}/model.safetensors.index.json"
    found = loaded(online, f"bank = Bank.from_pretrained({name!r})", tmp_path)
    assert set(found.layers) == set(filters(STATE))
    assert all(torch.equal(found.layers[name], value) for name, value in filters(STATE).items())
    assert hub.sent(".safetensors") < sum(map(len, files.values())) / 2
    assert found.metadata.source.sha256_announced is None


def test_a_prefix_goes_from_all_shards_or_none(hub, online, tmp_path):
    """Else layers that are not one would get one name, and one of them would be lost."""
    (name, value), *_ = filters(STATE).items()
    shards = {"a.safetensors": {f"module.{name}": value}, "b.safetensors": {name: value + 1}}
    index = {"weight_map": {layer: shard for shard, state in shards.items() for layer in state}}
    repo_id = new_repo()
    files = {shard: save(state) for shard, state in shards.items()}
    hub.add(repo_id, {**files, "model.safetensors.index.json": json.dumps(index).encode()})
    found = loaded(online, f"bank = Bank.from_pretrained('hf://{repo_id}/model.safetensors.index.json')", tmp_path)
    assert set(found.layers) == {name, f"module.{name}"}


@pytest.mark.parametrize(
    "index", [b"", b"{}", b"[]", b'{"weight_map": {"a": "../a.safetensors"}}', b'{"weight_map": {"a": 1}}', b"\xff"]
)
def test_an_index_that_is_none(hub, online, index):
    repo_id = new_repo()
    hub.add(repo_id, {"model.safetensors.index.json": index})
    done = online("info", f"hf://{repo_id}/model.safetensors.index.json")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "model.safetensors.index.json" in done.err


def test_a_file_here_has_no_revisions(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(save(STATE))
    assert len(Bank.from_checkpoint(tmp_path / "a.safetensors")) == 192
    with pytest.raises(UnknownNameError, match="is a file here and has no revisions"):
        Bank.from_checkpoint(tmp_path / "a.safetensors", revision="v1")


def test_kinds_are_kept_apart(hub, online):
    repo_id = new_repo()
    hub.add(repo_id, {"a.safetensors": save({**STATE, "stem.weight": torch.ones(8, 3, 3, 3)})})
    for kind, count in (("depthwise", 192), ("dense", 8), ("all", 200)):
        for _ in range(2):
            bank = f"Bank.from_checkpoint('hf://{repo_id}/a.safetensors', {kind!r})"
            assert online.python(f"from masterkey import Bank\nprint(len({bank}))").out == f"{count}\n"


def test_a_bank_is_not_extracted(hub, online):
    repo_id = publish(hub, small_bank())
    done = online("info", f"hf://{repo_id}/model.safetensors")
    assert "is a bank already" in done.err


# -- timm/<checkpoint> -------------------------------------------------------------------------------------


def test_timm_weights(hub, online, offline, tmp_path):
    repo_id, network = add_timm(hub)
    found = loaded(online, f"bank = Bank.from_pretrained({repo_id!r})", tmp_path / "a")
    expected = from_model(network)
    assert found.sha256 == expected.sha256
    assert found.metadata.layers == expected.metadata.layers
    assert found.metadata.order == "forward"
    commit = hub.store.repositories[repo_id].refs["main"]
    assert replace(found.metadata.source, sha256_announced=None) == Source("timm", repo_id, commit, "model.safetensors")
    assert found.metadata.licence == "apache-2.0"
    assert (found.name, found.metadata.base_model) == (repo_id.removeprefix("timm/"), repo_id)
    assert found.metadata.datasets == ("imagenet-1k",)
    assert {request.status for request in hub.log("/lfs/")} == {206}
    hub.requests.clear()
    again = loaded(offline, f"bank = Bank.from_pretrained({repo_id!r})", tmp_path / "b")
    assert (again.metadata, again.sha256) == (found.metadata, found.sha256)
    assert hub.requests == []


@pytest.mark.parametrize("kind", ["pointwise", "dense", "all"])
def test_other_kinds_of_timm_weights(hub, online, tmp_path, kind):
    repo_id, network = add_timm(hub)
    done = online("extract", repo_id, "--kind", kind, "-o", str(tmp_path))
    assert done.code == 0, done.err
    found, expected = Bank.from_pretrained(tmp_path), from_model(network, kind)
    assert (found.sha256, found.metadata.layers) == (expected.sha256, expected.metadata.layers)


def test_timm_weights_in_torch_format(hub, online, tmp_path):
    repo_id, network = add_timm(hub)
    repository = hub.store.repositories[repo_id]
    config = bytes(repository.commits[repository.refs["main"]]["config.json"].data)
    hub.add(repo_id, {"config.json": config, "pytorch_model.bin": torch_file(network.state_dict())})
    found = loaded(online, f"bank = Bank.from_pretrained({repo_id!r})", tmp_path)
    assert (found.sha256, found.metadata.licence) == (from_model(network).sha256, "apache-2.0")
    assert found.metadata.source.file == "pytorch_model.bin"


def test_licences_that_differ_both_hold(hub, online, tmp_path):
    repo_id, _ = add_timm(hub, **{"README.md": card(license="other", license_name="dinov3-license")})
    found = loaded(online, f"bank = Bank.from_pretrained({repo_id!r})", tmp_path)
    assert found.metadata.licence == "apache-2.0 AND dinov3-license"


def test_timm_weights_of_another_architecture(hub, online):
    network = small_timm()
    layer = find_layers(network).layers[0]
    renamed = {name.replace(layer.name, "else"): value for name, value in network.state_dict().items()}
    larger = {**network.state_dict(), f"{layer.name}.weight": torch.ones(3, 1, 7, 7)}
    for state, words in ((renamed, "no such tensor"), (larger, "one of shape [3, 1, 7, 7]")):
        repo_id, _ = add_timm(hub, **{"model.safetensors": save(state)})
        done = online("info", repo_id)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert words in done.err
        assert f"hf://{repo_id}/model.safetensors" in done.err


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"not json", "does not say which network of timm"),
        (b"[]", "does not say which network of timm"),
        (b"[" * 100_000, "does not say which network of timm"),
        (b"{}", "does not say which network of timm"),
        (b'{"architecture": 3}', "does not say which network of timm"),
        (b'{"architecture": "no_such_net"}', "timm has no model named 'no_such_net'"),
        (b'{"architecture": "resnet18"}', "no spatial depthwise convolution"),
        (b'{"architecture": "hf-hub:evil/x"}', "does not say which network of timm"),
        (b'{"architecture": "test_convnext", "model_args": {"nonsense": 1}}', "cannot be built with {'nonsense': 1}"),
        (b'{"architecture": "test_convnext", "model_args": 3}', "does not say which network of timm"),
    ],
)
def test_configurations_that_are_none(hub, online, config, words):
    repo_id, _ = add_timm(hub, **{"config.json": config})
    done = online("info", repo_id)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert words in done.err


def test_a_built_in_bank_is_made_at_first_use(hub, online, offline, tmp_path):
    add_network(hub, "convnext_atto", "timm/convnext_atto.d2_in1k", tmp_path)
    first = online("verify", "convnext-atto.in1k")
    assert first.code == 0, first.err
    hub.requests.clear()
    assert offline("verify", "convnext-atto.in1k").out == first.out
    assert online("info", "convnext-atto.in1k").code == 0
    assert hub.requests == []


# -- tokens ------------------------------------------------------------------------------------------------


def test_gated_and_private_repositories(hub, online, tmp_path):
    gated, private = publish(hub, small_bank(), gated=True), publish(hub, small_bank(), private=True)
    for name, words in ((gated, "is gated"), (private, "has no such repository, or it is private")):
        done = online("info", name)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert words in done.err
        assert "--token, HF_TOKEN or `hf auth login`" in done.err
        assert online("info", name, "--token", "hf_wrong").code == 1
        assert online("info", name, "--token", "hf_reader").code == 0
    assert {request.token for request in hub.requests if request.host == "cdn"} == {None}
    code = f"bank = Bank.from_pretrained({gated!r}, token='hf_reader', cache_dir={str(tmp_path / 'c')!r})"
    assert loaded(online, code, tmp_path / "b").sha256 == small_bank().sha256


def test_ranges_of_a_gated_checkpoint(hub, online):
    repo_id = new_repo()
    hub.add(repo_id, {"a.safetensors": save(STATE)}, gated=True)
    assert "is gated" in online("info", f"hf://{repo_id}/a.safetensors").err
    assert online("info", f"hf://{repo_id}/a.safetensors", "--token", "hf_reader").code == 0


# -- the command line --------------------------------------------------------------------------------------


def test_info_shows_what_is_known(hub, online):
    repo_id, network = add_timm(hub)
    shown = facts(online("info", repo_id, "--json"))
    assert shown["source"] == f"timm {repo_id}"
    assert shown["source sha256"] == "not pinned"
    assert len(shown["announced sha256"]) == 64
    assert (shown["licence"], shown["base model"], shown["data sets"]) == ("apache-2.0", repo_id, ["imagenet-1k"])
    assert shown["sha256"] == from_model(network).sha256
    assert sum(shown["filters"].values()) == len(from_model(network))


def test_download_then_everything_offline(hub, online, offline, tmp_path):
    repo_id, _ = add_timm(hub)
    assert facts(online("download", repo_id, "--json"))["kind"] == "depthwise"
    hub.requests.clear()
    assert offline("verify", repo_id).code == 0
    assert offline("extract", repo_id, "-o", str(tmp_path / "x")).code == 0
    assert offline("plot", repo_id, "-o", str(tmp_path / "a.png"), "--max-filters", "4").code == 0
    assert offline("inspect", "test_convnext", "--bank", repo_id).code == 0
    control = offline("verify", f"shuffled-pixels:{repo_id}")
    assert control.code == 0, control.err
    assert hub.requests == []


def test_list_remote(hub, online, offline):
    bank = make_bank("listed", licence="MIT")
    repo_id = publish(hub, bank)
    hub.add(new_repo(), {"README.md": card(license="mit", tags=["timm"])})
    listed = {entry["bank"]: entry["licence"] for entry in facts(online("list", "--remote", "--json"))}
    assert listed[repo_id] == "mit"
    assert all(
        "masterkey" in hub.store.repositories[name].info(hub.store.repositories[name].refs["main"])["tags"]
        for name in listed
    )
    assert repo_id in online("list", "--remote").out
    done = offline("list", "--remote")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "HF_HUB_OFFLINE is set" in done.err


@pytest.mark.parametrize(
    ("front_matter", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": ["mit", "apache-2.0"]}, "apache-2.0 AND mit"),
        ({"license": "other", "license_name": "own"}, "own"),
        ({"license": "other"}, "other"),
        ({}, None),
        ({"license": None}, None),
        ({"license": 3}, None),
        (None, None),
    ],
)
def test_licences_of_cards(front_matter, licence):
    assert licence_of(front_matter) == licence
