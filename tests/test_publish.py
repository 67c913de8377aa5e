"""Publishing, with the real client against a server that speaks the Hub's protocol."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import HubServer, card
from hub_shell import Shell
from safetensors.torch import save as encode
from safetensors.torch import save_file
from samples import make_bank

from masterkey import Bank, join
from masterkey.build import build_bank
from masterkey.card import card_text
from masterkey.catalog import find_recipe, published_recipes
from masterkey.cli.main import run
from masterkey.distill import Distilled, distill
from masterkey.errors import BankFormatError, PublishError
from masterkey.extract import from_state_dict
from masterkey.hub.publish import check_repo_id, read_folder
from masterkey.hub.terms import check_terms
from masterkey.index import index
from masterkey.metadata import Source

FILES = {"README.md", "config.json", "model.safetensors", "atlas.png"}
TOKEN = {"HF_TOKEN": "hf_reader"}  # the server's one token that may write


@pytest.fixture(scope="module")
def server():
    with HubServer() as hub:
        yield hub


@pytest.fixture(scope="module")
def shell(server, tmp_path_factory):
    """Commands with the token that may write."""
    with Shell(server, tmp_path_factory.mktemp("home"), **TOKEN) as shell:
        yield shell


@pytest.fixture
def hub(server):
    server.clear()
    return server


@pytest.fixture
def bank() -> Bank:
    return make_bank("mine", licence="MIT", base_model="me/net", datasets=("pets",))


@pytest.fixture
def folder(bank, tmp_path) -> Path:
    return bank.save_pretrained(tmp_path / "mine")


def content(hub: HubServer, repo_id: str, revision: str = "main") -> set[str]:
    """The files of a repository, but for the one that the Hub itself makes."""
    repository = hub.store.repositories[repo_id]
    return set(repository.commits[repository.resolve(revision)]) - {".gitattributes"}


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Check that a command was refused in one sentence, and return that."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    sentence = done.stderr.strip()
    assert sentence.startswith("masterkey: ") and "\n" not in sentence and "Traceback" not in sentence
    return sentence


# -- what goes up -------------------------------------------------------------------------------------------


def test_a_pushed_bank_comes_back(hub, shell, bank, folder, tmp_path):
    done = shell("push", folder, "org/first", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    repository = hub.store.repositories["org/first"]
    assert content(hub, "org/first") == FILES == set(facts["files"])
    assert len(repository.commits) == 2, "the Hub's own first commit, and one with all files"
    assert facts["url"].endswith(repository.resolve("main"))
    assert not repository.private
    assert hub.read("org/first", "model.safetensors") == (folder / "model.safetensors").read_bytes()
    assert hub.read("org/first", "config.json") == (folder / "config.json").read_bytes()
    readme = hub.read("org/first", "README.md").decode()
    assert 'bank="org/first"' in readme and "path/to" not in readme
    assert repository.info(repository.resolve("main"))["tags"] == [
        *("masterkey", "depthwise", "filter-bank", "license:mit", "dataset:pets", "base_model:me/net"),
    ]
    done = shell("verify", "org/first", "--json")
    assert json.loads(done.stdout)["sha256"] == bank.sha256, done.stderr


def test_the_same_bank_again_makes_no_commit(hub, shell, folder, tmp_path):
    for _ in range(2):
        done = shell("push", folder, "org/again")
        assert done.returncode == 0, done.stderr
    assert len(hub.store.repositories["org/again"].commits) == 2


def test_private_stays_private(hub, shell, folder, tmp_path):
    assert shell("push", folder, "org/secret", "--private").returncode == 0
    assert hub.store.repositories["org/secret"].private
    hub.add("org/open", {"README.md": b""})
    done = shell("push", folder, "org/open", "--private")
    assert "is there already and is public" in refused(done)
    assert "is there already and is public" in refused(shell("push", folder, "org/open", "--private", "--create-pr"))
    assert content(hub, "org/open") == {"README.md"} and "refs/pr/1" not in hub.store.repositories["org/open"].refs


def test_weights_that_are_no_bank_stay(hub, shell, folder):
    files = {"model.safetensors": encode({"head.weight": torch.zeros(2, 3)}), "README.md": b"a network"}
    hub.add("org/network", files)
    for more in ((), ("--create-pr",)):
        assert "holds a model.safetensors that is no bank" in refused(shell("push", folder, "org/network", *more))
    assert {name: hub.read("org/network", name) for name in content(hub, "org/network")} == files


def test_what_another_bank_had_does_not_stay_beside_this_one(hub, shell, bank, tmp_path):
    joined = join([bank, make_bank("theirs", licence="CC-BY-4.0")]).save_pretrained(tmp_path / "joined")
    hub.add("org/one", {"notes.txt": b"mine"})
    assert shell("push", joined, "org/one").returncode == 0
    assert content(hub, "org/one") == {*FILES, "LICENSE", "notes.txt"}
    assert shell("push", bank.save_pretrained(tmp_path / "alone"), "org/one").returncode == 0
    assert content(hub, "org/one") == {*FILES, "notes.txt"}
    files = {path: hub.read("org/one", path) for path in content(hub, "org/one")}
    hub.add("org/one", {**files, "LICENSE": b"added by hand"})
    assert shell("push", tmp_path / "alone", "org/one").returncode == 0
    assert hub.read("org/one", "LICENSE") == b"added by hand"


def test_a_pull_request_from_python(hub, folder, tmp_path):
    hub.add("org/theirs", {"README.md": b"theirs"})
    code = (
        f"import masterkey; bank = masterkey.Bank.from_pretrained({str(folder)!r}).renamed('renamed')\n"
        "print(bank.push_to_hub('org/theirs', token='hf_reader', create_pr=True))"
    )
    done = hub.run("-c", code, home=tmp_path)
    assert done.stdout.strip() == f"{hub.endpoint}/org/theirs/discussions/1", done.stderr
    assert hub.read("org/theirs", "README.md") == b"theirs"
    assert content(hub, "org/theirs", "refs/pr/1") == FILES
    assert b'bank="org/theirs"' in hub.read("org/theirs", "README.md", "refs/pr/1")


def test_a_dry_run_sends_nothing(hub, shell, folder, tmp_path):
    done = shell("push", folder, "org/dry", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts["files"]) == FILES and "url" not in facts and facts["licence"] == "MIT"
    assert facts["files"]["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    assert hub.requests == []


def test_prose_written_by_hand_goes_up(bank, folder):
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text + "\nMeasured by me.\n")
    (folder / "LICENSE").write_text("MIT, in full")
    (folder / "notes.txt").write_text("not for the Hub")
    found, files = read_folder(folder, "me/bank")
    assert found.sha256 == bank.sha256
    assert files["README.md"].decode() == card_text(bank, where="me/bank") + "\nMeasured by me.\n"
    assert files["LICENSE"] == b"MIT, in full" and set(files) == {*FILES, "LICENSE"}


# -- no licence gets lost -----------------------------------------------------------------------------------


def test_a_folder_without_card_and_config_gets_them(bank, folder):
    for name in FILES - {"model.safetensors"}:
        (folder / name).unlink()
    assert set(read_folder(folder)[1]) == FILES


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("license: mit", "license: apache-2.0", "says license: apache-2.0, the bank's metadata calls for license: mit"),
        ("license: mit\n", "", "says license: nothing"),
        ("| licence | MIT |", "| licence | none |", "says licence none, the bank's metadata MIT"),
        ("base_model: me/net\n", "", "does not name the base model me/net"),
        ("library_name: masterkey", "library_name: timm", "library_name: timm"),
        ("license: mit", "license: [", "front matter of its README.md cannot be read"),
        ("---\n", "", "says library_name: nothing"),
    ],
)
def test_a_card_that_says_something_else_is_refused(folder, was, becomes, words):
    text = (folder / "README.md").read_text()
    assert was in text
    (folder / "README.md").write_text(text.replace(was, becomes))
    with pytest.raises(PublishError) as caught:
        read_folder(folder)
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_an_edited_config_is_refused(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"MIT"', '"Apache-2.0"'))
    with pytest.raises(PublishError, match=r"is not the metadata of model\.safetensors"):
        read_folder(folder)


def test_a_config_nested_without_end_is_refused(folder):
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(PublishError, match="cannot be read: nested too deeply"):
        read_folder(folder)


def test_a_bank_that_does_not_verify_is_refused(hub, shell, folder, tmp_path):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert "is damaged" in refused(shell("push", folder, "org/bad"))
    assert hub.requests == []
    with pytest.raises(BankFormatError, match="cannot read"):
        read_folder(tmp_path / "nowhere")


def stating(name="mine", source="x", **about) -> Bank:
    bank = make_bank(name, **about)
    return Bank(bank.layers, replace(bank.metadata, source=Source("hub", source)))


V2 = "timm/convnextv2_tiny.fcmae_ft_in1k"


@pytest.mark.parametrize(
    ("bank", "words"),
    [
        (stating(source=V2), f"come from {V2}, which is under CC-BY-NC-4.0"),
        (stating(source=V2, licence="MIT"), "says licence MIT"),
        (stating(base_model=V2, licence="Apache-2.0"), "under CC-BY-NC-4.0"),
        (stating(source=V2, licence="CC-BY-NC-4.0 OR MIT"), "under CC-BY-NC-4.0"),
        (stating("convnextv2-tiny.in1k", licence="MIT", base_model=V2), "under CC-BY-NC-4.0"),
        (stating("convnext-tiny.in1k", licence="Apache-2.0"), "names the base model timm/convnext_tiny.fb_in1k"),
        (stating("hornet-tiny.in1k", licence="MIT", base_model="hornet_tiny_7x7"), "names the data set imagenet-1k"),
        (stating(base_model="hornet_tiny_7x7", licence="Apache-2.0"), "is under MIT"),
        # no recipe has it, timm states it
        (stating(source="timm/convnextv2_base.fcmae_ft_in22k_in1k", licence="MIT"), "under cc-by-nc-4.0"),
    ],
)
def test_a_bank_that_lost_its_licence_is_refused(bank, words):
    with pytest.raises(PublishError) as caught:
        check_terms(bank.metadata, card_text(bank))
    assert words in str(caught.value) and "is not published" in str(caught.value)


def test_every_part_of_a_joined_bank_counts():
    parts = [stating("a", V2, licence="CC-BY-NC-4.0"), stating("b", licence="MIT")]
    joined = join([join(parts), stating("c", licence="Apache-2.0")])
    assert joined.metadata.licence == "Apache-2.0 AND CC-BY-NC-4.0 AND MIT"
    check_terms(joined.metadata, card_text(joined))
    for lost in ("Apache-2.0 AND MIT", "CC-BY-NC-4.0 AND MIT", "MIT", None):
        loose = Bank(joined.layers, replace(joined.metadata, licence=lost))
        with pytest.raises(PublishError, match="build or extract it anew"):
            check_terms(loose.metadata, card_text(loose))


@pytest.mark.parametrize(
    "bank",
    [
        stating(),
        stating(licence="my-own"),
        stating(source=V2, licence="cc-by-nc-4.0"),
        stating(source=V2, licence="MIT AND CC-BY-NC-4.0"),
        stating(source="timm/nothing_like_it.in1k", base_model="me/net", licence="MIT"),
        stating("convnextv2-tiny.in1k", V2, licence="CC-BY-NC-4.0", base_model=V2, datasets=("imagenet-1k",)).shuffled(
            1
        ),
    ],
)
def test_a_bank_that_kept_its_licence_passes(bank):
    check_terms(bank.metadata, card_text(bank))


@pytest.mark.parametrize(
    "repo_id", ["", "bank", "a/b/c", "../x/y", "a/b..c", "a/-b", "a b/c", "a/" + "b" * 100, "hf://a/b"]
)
def test_what_is_no_repository_is_refused(repo_id):
    with pytest.raises(PublishError, match="NAMESPACE/NAME"):
        check_repo_id(repo_id)


# -- what goes wrong on the way -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "the Hub asks for a token that may write; log in with: hf auth login"),
        ({**TOKEN, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; publishing needs the network"),
        ({**TOKEN, "HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 did not answer"),
    ],
    ids=["no token", "offline", "unreachable"],
)
def test_nothing_is_published_without(hub, folder, tmp_path, environment, words):
    done = hub.run("push", str(folder), "org/faulty", home=tmp_path, **environment)
    assert words in refused(done)
    assert "org/faulty" not in hub.store.repositories


def test_a_token_that_is_unknown_and_a_repository_that_is_not_there(hub, shell, folder):
    done = shell("push", folder, "org/faulty", "--token", "hf_stranger")
    assert "the Hub asks for a token that may write" in refused(done)
    done = shell("push", folder, "org/faulty", "--create-pr")
    assert "there is no repository org/faulty that the token may see" in refused(done)
    assert "org/faulty" not in hub.store.repositories


@pytest.mark.parametrize(
    ("path", "code", "methods", "words"),
    [
        ("commit/main", 403, ("POST",), "the token may not write to org; use one that may"),
        ("commit/main", 503, ("POST",), "the Hub answered with status 503"),
        ("*/upload/", 403, ("PUT",), "the Hub answered with status 403"),
        ("preupload/main", 500, ("POST",), "the Hub answered with status 500"),
    ],
)
def test_a_fault_leaves_the_repository_as_it_was(hub, shell, tmp_path, path, code, methods, words):
    before = hub.add("org/kept", {"README.md": b"before"})
    new = make_bank("new", seed=sum(map(ord, words)), licence="MIT")  # so that none of its files are there already
    folder = new.save_pretrained(tmp_path / "new")
    hub.fault(path, "status", code=code, methods=methods, headers={"Retry-After": "0"})
    assert words in refused(shell("push", folder, "org/kept"))
    assert hub.store.repositories["org/kept"].resolve("main") == before


def test_a_hub_that_never_answers_is_given_up(hub, folder, tmp_path):
    hub.fault("repos/create", "silent", methods=("POST",))
    done = hub.run("push", str(folder), "org/silent", home=tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="1", **TOKEN)
    assert "did not answer (ReadTimeout)" in refused(done)
    assert "org/silent" not in hub.store.repositories


def test_a_busy_hub_is_asked_again(hub, shell, folder, tmp_path):
    fault = hub.fault("commit/main", "status", code=503, methods=("POST",), times=2)
    done = shell("push", folder, "org/busy")
    assert (done.returncode, fault.befell) == (0, 2), done.stderr
    assert content(hub, "org/busy") == FILES


def test_killed_before_the_commit_nothing_is_there_and_the_next_push_is_whole(hub, shell, folder, tmp_path):
    hub.fault("commit/main", "silent", methods=("POST",), times=1)
    command = [sys.executable, "-m", "masterkey.cli.main", "push", str(folder), "org/killed"]
    with subprocess.Popen(command, env=hub.environment(tmp_path, **TOKEN)) as process:
        while not hub.log("commit/main", "POST"):
            with suppress(subprocess.TimeoutExpired):  # what is waited for is the request, or an end without one
                process.wait(0.1)
                pytest.fail("it ended before it was killed")
        process.kill()
    assert content(hub, "org/killed") == set()
    assert shell("push", folder, "org/killed").returncode == 0
    assert content(hub, "org/killed") == FILES


# -- all of them --------------------------------------------------------------------------------------------


def test_all_is_a_table_of_what_would_go_where(hub, shell, tmp_path):
    built = tmp_path / "built"
    save(built, "hornet-tiny.in1k")
    save(built, "starnet-s1.in1k", licence="MIT")
    done = shell("publish", "--all", "--dry-run", "--json", "--banks", built, "--to", "org", "--allow-degenerate")
    rows = {row["bank"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {recipe.name for recipe in published_recipes()}
    hornet = rows["hornet-tiny.in1k"]
    assert (hornet["repo_id"], hornet["licence"], hornet["built"]) == ("org/hornet-tiny.in1k", "MIT", True)
    assert hornet["problem"] is None and set(hornet["files"]) == FILES
    assert 4 * 49 * 11_488 == hornet["weights"] < hornet["files"]["model.safetensors"]
    assert not rows["convnext-tiny.in1k"]["built"] and rows["convnext-tiny.in1k"]["files"] == {}
    assert rows["convnextv2-tiny.in1k"]["licence"] == "CC-BY-NC-4.0 (non-commercial)"
    assert "under Apache-2.0" in rows["starnet-s1.in1k"]["problem"] and done.returncode == 1
    assert hub.requests == []


def test_all_go_up_and_what_cannot_is_told(hub, shell, tmp_path):
    hornet = save(tmp_path / "built", "hornet-tiny.in1k")
    layers = index()["convnext-atto.in1k"].layers
    weights = {layer.name: torch.randn(layer.filters, 1, *layer.kernel) for layer in layers}
    files = {
        "model.safetensors": encode(weights),
        "config.json": b'{"architecture": "convnext_atto", "num_classes": 1000}',
        "README.md": card(license="apache-2.0", library_name="timm"),
    }
    hub.add("timm/convnext_atto.d2_in1k", files)
    done = shell("publish", "--all", "--banks", tmp_path / "built", "--to", "org", "--allow-degenerate")
    assert done.returncode == 1
    total = len(published_recipes())
    trained = {recipe.name for recipe in published_recipes() if recipe.rule == "trained"}
    assert f"{total - 2 - len(trained)} of {total} banks were not published" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert content(hub, "org/hornet-tiny.in1k") == FILES == content(hub, "org/convnext-atto.in1k")
    names = [recipe.name for recipe in published_recipes()]
    there = {name for name in names if f"org/{name}" in hub.store.repositories}
    assert there == {"hornet-tiny.in1k", "convnext-atto.in1k", *trained}
    assert hub.read("org/hornet-tiny.in1k", "config.json") == (hornet / "config.json").read_bytes()
    for name in ("org/convnext-atto.in1k", "convnext-atto.in1k"):
        done = shell("verify", name, "--json")
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["bank"] == "convnext-atto.in1k"
        assert facts["sha256"] == from_state_dict(weights, name="x").sha256


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_namespace_that_is_none_is_refused_once(dry, capsys):
    assert run(["publish", "--all", "--to", "bad name", *dry]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "is no name of a repository" in sentence


@pytest.mark.parametrize("name", ["config.json", "README.md", "LICENSE"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    make_bank(licence="MIT").save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"{\xff")
    with pytest.raises(PublishError, match=rf"^{re.escape(str(tmp_path / name))} cannot be read: "):
        read_folder(tmp_path, "org/name", allow_degenerate=True)


@pytest.mark.parametrize("arguments", [["publish"], ["publish", "--all"], ["push", "x"]], ids=" ".join)
def test_wrong_usage(arguments):
    assert run(arguments) == 2


def save(built: Path, name: str, **about: object) -> Path:
    """A bank as ``build`` writes it, of random weights, or with a fault in what is said about it."""
    generator = torch.Generator().manual_seed(0)
    layers = {
        layer.name: torch.randn(layer.filters, 1, *layer.kernel, generator=generator) for layer in index()[name].layers
    }
    built.mkdir(exist_ok=True)
    save_file(layers, built / "source.safetensors")
    bank = build_bank(find_recipe(name), source=built / "source.safetensors", pinned=False)
    return Bank(bank.layers, replace(bank.metadata, **about)).save_pretrained(built / name)


# -- keys with their assignment -----------------------------------------------------------------------------


@pytest.fixture
def distilled(bank) -> Distilled:
    return distill(bank.select(kernel=7), 2, "kmeans", random=None)


def test_a_pushed_key_bank_takes_its_assignment_along(hub, shell, distilled, tmp_path):
    done = shell("push", distilled.save_pretrained(tmp_path / "keys"), "org/keys", "--json", "--allow-degenerate")
    assert done.returncode == 0, done.stderr
    assert content(hub, "org/keys") == {*FILES, "assignment.csv"} == set(json.loads(done.stdout)["files"])
    assert hub.read("org/keys", "assignment.csv") == distilled.assignment.to_csv()
    assert len(hub.store.repositories["org/keys"].commits) == 2, "bank and assignment are one commit"


def test_a_key_bank_from_python_comes_back_whole(hub, distilled, tmp_path):
    distilled.save_pretrained(tmp_path / "keys")
    code = (
        "from masterkey.distill import Distilled\n"
        f"keys = Distilled.from_pretrained({str(tmp_path / 'keys')!r})\n"
        "keys.push_to_hub('org/whole', token='hf_reader', allow_degenerate=True)\n"
        f"Distilled.from_pretrained('org/whole').save_pretrained({str(tmp_path / 'back')!r})"
    )
    done = hub.run("-c", code, home=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in (*FILES, "assignment.csv"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "keys" / name).read_bytes(), name


def test_an_assignment_of_another_bank_is_refused_and_a_bank_without_one_is_not(bank, distilled, tmp_path):
    keys = distilled.save_pretrained(tmp_path / "keys")
    table = keys / "assignment.csv"
    right = table.read_bytes()
    table.write_bytes(right.replace(b",0,", b",1,", 1))
    with pytest.raises(BankFormatError, match=r"assignment\.csv is damaged or of another bank"):
        read_folder(keys, allow_degenerate=True)
    table.unlink()
    assert set(read_folder(keys, allow_degenerate=True)[1]) == FILES
    plain = bank.save_pretrained(tmp_path / "plain")
    (plain / "assignment.csv").write_bytes(right)
    with pytest.raises(BankFormatError, match="was not distilled"):
        read_folder(plain)
    changed = distilled.bank.signed(1).save_pretrained(tmp_path / "changed")
    (changed / "assignment.csv").write_bytes(right)
    with pytest.raises(BankFormatError, match="was changed since by signed"):
        read_folder(changed, allow_degenerate=True)
    with pytest.raises(BankFormatError, match="the bank states"):
        Distilled(distilled.bank, distill(bank.select(kernel=7), 3, "kmeans", random=None).assignment).save_pretrained(
            tmp_path / "mixed"
        )
