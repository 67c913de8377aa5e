"""Building from the Hub by recipe, and holding a bank to what was locked, against a local server."""

import json
from pathlib import Path

import torch
from hub_server import HubServer, card
from hub_shell import Shell, unpinned_index
from safetensors.torch import save

from masterkey.catalog import published_recipes
from masterkey.extract import from_state_dict
from masterkey.index import index, parse_index

NAME, SOURCE = "convnext-atto.in1k", "timm/convnext_atto.d2_in1k"
# the commands with an index of their own, since the package's is not the tests' to write
COMMANDS = """
import sys
from pathlib import Path
import masterkey.index
masterkey.index._own = lambda: Path({index!r})
from masterkey.cli.main import run
sys.exit(max(run(arguments) for arguments in {commands!r}))
"""


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randn(layer.filters, 1, *layer.kernel, generator=generator) for layer in index()[NAME].layers
    }


def put(hub: HubServer, seed: int, licence: str = "apache-2.0") -> str:
    """Put a version of the source on the server, as timm's repositories are; return its commit."""
    files = {
        "model.safetensors": save({**weights(seed), "stem.0.weight": torch.zeros(40, 3, 4, 4)}),
        "config.json": b'{"architecture": "convnext_atto", "num_classes": 1000}',
        "README.md": card(license=licence, library_name="timm"),
    }
    return hub.add(SOURCE, files)


def test_build_all_locks_what_it_could_build_and_names_keep_to_it(tmp_path: Path):
    own = unpinned_index(tmp_path / "index.json")

    def masterkey(*commands: list[str], home: str = "home"):
        code = COMMANDS.format(index=str(own), commands=list(commands))
        return hub.run("-c", code, home=tmp_path / home)

    with HubServer() as hub:
        first = put(hub, 1)
        done = masterkey(["build", "--all", "--lock", "-o", str(tmp_path / "built"), "--json", "--allow-degenerate"])
        total = len(published_recipes())
        trained = sorted(recipe.name for recipe in published_recipes() if recipe.rule == "trained")
        assert done.returncode == 1 and f"{total - 1 - len(trained)} of {total} banks were not built" in done.stderr
        assert "hornet-tiny.in1k was not built: hornet-tiny.in1k is made of the .pth file" in done.stderr
        assert "Traceback" not in done.stderr
        expected = from_state_dict(weights(1), name="x").sha256
        built = {row["bank"]: (row["filters"], row["sha256"]) for row in json.loads(done.stdout)}
        assert built.pop(NAME) == (1840, expected)
        assert sorted(built) == trained
        assert sorted(path.name for path in (tmp_path / "built").iterdir()) == sorted([NAME, *trained])
        entry = parse_index(own.read_text())[NAME]
        assert (entry.sha256, entry.revision) == (expected, first)
        assert sum("sha256" in line for line in own.read_text().splitlines()) == 1 + len(trained)
        locked = parse_index(own.read_text())
        assert all(locked[name] == index()[name] for name in trained)

        put(hub, 2)  # the source moves on, the name does not
        done = masterkey(["verify", NAME, "--json"], home="new")
        assert json.loads(done.stdout)["sha256"] == expected, done.stderr
        # filters that are not the locked ones are refused
        own.write_text(own.read_text().replace(expected, "0" * 64))
        done = masterkey(["verify", NAME], home="new")
        assert done.returncode == 1 and "but 0000000000000000… is expected" in done.stderr


def test_a_source_under_another_licence_is_refused(tmp_path: Path):
    with HubServer() as hub, Shell(hub, tmp_path) as shell:
        put(hub, 1, licence="cc-by-nc-4.0")
        done = shell("build", NAME, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert f"{NAME} is under Apache-2.0 as its recipe says, but its source {SOURCE} says" in done.stderr
    assert "cc-by-nc-4.0" in done.stderr and not (tmp_path / "out").exists()
