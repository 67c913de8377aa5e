"""Experiments and data sets of one's own: a TOML file, a folder of pictures, another batch size."""

import shutil
from pathlib import Path

import pytest
from sweep_files import make_pictures

from masterkey import Bank
from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data_name import place_of_data, same_data
from masterkey.benchmarks.experiment import experiment_names, load_experiment
from masterkey.benchmarks.experiment_file import read_built_in
from masterkey.benchmarks.own_banks import check_names
from masterkey.benchmarks.own_data import check_pictures
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import expected_runs

MINE = """
targets = ["mine"]
models = ["small"]
seeds = [0, 1]
lrs = [1e-3]
arms = [
    { name = "scratch" },
    { name = "random", bank = "random" },
    { name = "bank", bank = "scale-space-8" },
    { name = "other", bank = "scratch:./pictures/../pictures" },
]
networks.small = { name = "convnext_atto", kwargs = { depths = [1, 1, 1, 1], dims = [8, 8, 8, 8] } }
data.mine = { name = "./pictures", train = { batch_size = 6 } }
pictures = { pixels = 32 }
train = { epochs = 1, batch_size = 8, warmup_epochs = 0 }
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder with ``mine.toml`` and the pictures that it names."""
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    make_pictures(folder / "pictures")
    (folder / "mine.toml").write_text(MINE)
    return folder


def test_several_experiments_are_run_one_by_one(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    head, _, rest = MINE.replace("[0, 1]", "[0]").partition("arms = [")
    tail = rest.partition("\n]\n")[2]
    scratch, random = '{ name = "scratch" }', '{ name = "random", bank = "random" }'
    Path("first.toml").write_text(f"{head}arms = [{scratch}]\n{tail}")
    Path("second.toml").write_text(f"{head}arms = [{scratch}, {random}]\n{tail}")
    store = ResultStore(tmp_path / "r")
    where = ("--size", "small", "--results", store.root)
    code, said = cli("bench", "run", "first.toml", "nothing-like-it", *where)
    assert code == 1 and "nothing-like-it" in said and not store.root.exists()
    code, said = cli("bench", "run", "first.toml", "second.toml", "first.toml", *where)
    assert code == 0 and len(store.run_ids()) == 2
    summaries = [line for line in said.splitlines() if ".toml: " in line]
    assert summaries == ["first.toml: 1 done", "second.toml: 1 done, 1 already there"]
    code, said = cli("bench", "run", "first.toml", "second.toml", *where, "--json")
    assert code == 0
    assert '"first.toml": {' in said and '"second.toml": {' in said
    code, said = cli("bench", "run", "first.toml", "second.toml", *where, "--dry-run")
    assert code == 0 and said.count("built ") == 3


def test_a_file_is_run_and_reported_like_any_other(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    where = ("--size", "small", "--results", tmp_path / "r")
    assert cli("bench", "run", "./mine.toml", *where)[1].endswith("10 done\n")
    assert cli("bench", "run", "mine.toml", *where)[1].endswith("10 already there\n")
    store = ResultStore(tmp_path / "r")
    names = {store.read(run_id)["metrics"]["config"]["data"]["name"] for run_id in store.run_ids()}
    assert names == {str(mine / "pictures")}
    code, said = cli("bench", "list", "mine.toml", "--results", tmp_path / "r")
    assert code == 0 and said.splitlines()[1].split() == ["mine.toml", *["10/10"] * 3, "mine"]
    code, said = cli("bench", "show", store.run_ids()[0], "--results", tmp_path / "r", "--experiment", "mine.toml")
    assert code == 0 and "mine small (" in said
    assert "mine small (" not in cli("bench", "show", store.run_ids()[0], "--results", tmp_path / "r")[1]
    monkeypatch.chdir(tmp_path)  # the same file, seen from elsewhere, means the same runs
    code, said = cli("bench", "report", "mine/mine.toml", *where, "-o", tmp_path / "out")
    assert code == 0, said
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert f"masterkey bench report mine/mine.toml --size small --results {tmp_path / 'r'} -o report" in markdown
    assert markdown.startswith("# mine\n") and "\n> " not in markdown
    assert "## Runs that are missing" not in markdown


def test_a_folder_is_a_target_of_any_experiment(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    options = ("--target", "./pictures", "--results", tmp_path / "r", "--size", "smoke")
    assert cli("bench", "run", "arms", *options, "--only", "scratch", "--batch-size", 4)[0] == 0
    store = ResultStore(tmp_path / "r")
    (run_id,) = store.run_ids()
    config = store.read(run_id)["metrics"]["config"]
    assert (config["data"]["name"], config["data"]["pixels"]) == (str(mine / "pictures"), 32)
    assert config["train"]["batch_size"] == 4
    code, said = cli("bench", "report", "arms", *options, "--batch-size", 4, "-o", tmp_path / "out")
    assert code == 0, said
    command = "bench run arms --size smoke --target ./pictures --batch-size 4 --results"
    assert command in (tmp_path / "out" / "report.md").read_text()
    code, said = cli("bench", "report", "arms", *options, "-o", tmp_path / "out")
    assert code == 1 and "no run of arms at size smoke is finished" in said  # another batch size, other runs


def test_figures_of_other_pictures_do_not_stand_for_those_there_now(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    options = ("--target", "./pictures", "--results", tmp_path / "r", "--size", "smoke", "--only", "scratch")
    assert cli("bench", "run", "arms", *options)[0] == 0
    assert cli("bench", "run", "arms", *options)[1].endswith("1 already there\n")
    (mine / "pictures" / "train" / "dark" / "0.png").unlink()
    code, said = cli("bench", "run", "arms", *options)
    assert code == 1 and "are not those that run" in said and "give another folder with --results" in said


def test_figures_of_other_filters_do_not_stand_for_those_there_now(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "mine.toml").write_text(MINE.replace('"scale-space-8"', '"./keys"'))
    bank = Bank.from_pretrained("convnext-atto.tiny-imagenet.8-keys")
    bank.save_pretrained(mine / "keys")
    command = ("bench", "run", "mine.toml", "--size", "small", "--results", tmp_path / "r", "--only", "bank")
    assert cli(*command)[1].endswith("2 done\n")
    assert cli(*command)[1].endswith("2 already there\n")
    bank.pixel_shuffled(seed=0).save_pretrained(mine / "keys")
    code, said = cli(*command)
    assert code == 1 and len(said.splitlines()) == 1
    assert f"the filters of {mine / 'keys'} are not those that run" in said


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"scale-space-8"', '"scale-spcae-8"', "no bank named 'scale-spcae-8'; did you mean scale-space-8"),
        ('"scale-space-8"', '"./keys"', "the bank '/"),
        ('"scale-space-8"', '"./pictures"', "pictures"),
        ('"scratch:./pictures/../pictures"', '"scratch:pest"', "no data set named 'pest'"),
        ('"scratch:./pictures/../pictures"', '"scratch:mine@smal"', "timm has no model named 'smal'"),
        ('name = "convnext_atto"', 'name = "convnext_attoo"', "near names: convnext_atto"),
    ],
)
def test_a_name_that_means_nothing_is_refused_before_the_first_run(
    mine, cli, monkeypatch, tmp_path, old, new, sentence
):
    monkeypatch.chdir(mine)
    assert old in MINE
    (mine / "mine.toml").write_text(MINE.replace(old, new))
    code, said = cli("bench", "run", "mine.toml", "--size", "small", "--results", tmp_path / "r")
    assert code == 1 and len(said.splitlines()) == 1 and sentence in said
    assert not (tmp_path / "r").exists()


def test_a_checkpoint_that_is_not_here_fails_the_runs_that_take_it_alone(mine, cli, monkeypatch, tmp_path):
    monkeypatch.chdir(mine)
    (mine / "mine.toml").write_text(MINE.replace('"scale-space-8"', '"checkpoint:none.pth"'))
    only = ("--only", "scratch", "--only", "bank")
    code, said = cli("bench", "run", "mine.toml", "--size", "small", "--results", tmp_path / "r", *only)
    assert code == 1 and "2 done" in said and "none.pth" in said


def test_names_of_all_experiments_mean_something():
    for name in experiment_names():
        for size in ("smoke", "small", "paper"):
            check_names(load_experiment(name, size))


def test_a_file_with_few_sizes_is_listed(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "few.toml").write_text(MINE + "[sizes.smoke]\nseeds = [3]\n")
    code, said = cli("bench", "list", "few.toml", "arms", "--results", tmp_path / "r")
    assert code == 0
    assert said.splitlines()[1].split()[:4] == ["few.toml", "0/5", "-", "-"]


def test_a_folder_that_is_no_data_set_is_refused_before_the_first_run(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    options = ("--size", "smoke", "--results", tmp_path / "r")
    for folder, sentence in {"./none": "is no data folder", ".": "holds 1 folders (pictures)"}.items():
        code, said = cli("bench", "run", "arms", *options, "--target", folder)
        assert code == 1 and len(said.splitlines()) == 1
        assert sentence in said
    assert not (tmp_path / "r").exists()
    code, said = cli("bench", "run", "arms", *options, "--target", "pest")
    assert code == 1 and "no target 'pest'; did you mean pets?" in said


def test_a_corrupt_picture_is_refused_or_left_out(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "pictures" / "train" / "dark" / "0.png").write_bytes(b"no picture")
    only = ("bench", "run", "arms", "--size", "smoke", "--results", tmp_path / "r", "--only", "scratch")
    code, said = cli(*only, "--target", "./pictures")
    assert code == 1 and "1 of 18 pictures cannot be decoded" in said
    assert not (tmp_path / "r").exists()  # said before the first run, so it is no run's failure
    assert cli(*only, "--target", "./pictures", "--skip-corrupt")[0] == 0
    assert cli(*only, "--target", "./pictures")[0] == 0  # what is done needs no pictures
    report = ("bench", "report", *only[2:], "--target", "./pictures", "-o", tmp_path / "out")
    assert cli(*report)[0] == 0
    told = (tmp_path / "out" / "report.md").read_text()
    assert f"--results {tmp_path / 'r'} --skip-corrupt\n" in told


def test_a_class_that_is_not_in_train_is_refused_before_the_first_run(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "pictures" / "test" / "dark").rename(mine / "pictures" / "test" / "Dark")
    only = ("bench", "run", "own-pictures", "--size", "smoke", "--results", tmp_path / "r", "--only", "scratch")
    code, said = cli(*only, "--target", "./pictures")
    assert code == 1 and "1 of 4 classes have no picture in train" in said and not (tmp_path / "r").exists()
    code, said = cli(*only, "--target", "./pictures", "--dry-run")
    assert code == 1 and "1 of 4 classes have no picture in train, so they cannot be learnt: Dark" in said


def test_what_is_odd_about_pictures_is_said_once_before_the_first_run(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    train, test = mine / "pictures" / "train", mine / "pictures" / "test"
    command = ("bench", "run", "own-pictures", "--size", "smoke", "--results", tmp_path / "r", "--target", "./pictures")
    tiny = load_experiment(str(mine / "mine.toml"), "small").only(arms=["scratch", "random"])
    assert check_pictures(tiny, ResultStore(tmp_path / "r")) == []
    shutil.rmtree(test / "light")
    for name in ("0", "1"):
        shutil.copy(train / "dark" / f"{name}.png", test / "mixed" / f"copy{name}.png")
    shutil.copy(train / "dark" / "0.png", train / "dark" / "IMG_7")
    (train / "dark" / "Thumbs.db").write_bytes(b"")
    shutil.copy(train / "dark" / "0.png", mine / "pictures" / "loose.png")
    pictures = mine / "pictures"
    assert check_pictures(tiny, ResultStore(tmp_path / "r")) == [
        f"{pictures}: 2 files are no picture of a class and are passed over: loose.png, train/dark/IMG_7",
        f"{pictures}: 1 of 3 classes have no picture to judge on: light",
        f"{pictures}: 2 of the 14 pictures to judge on are copies, or nearly, of one that is learnt from, so any arm "
        "can know them by heart",
    ]
    code, said = cli(*command, "--only", "scratch", "--only", "random")
    assert code == 0 and said.count("are passed over") == said.count("no picture to judge on") == 1


def test_what_was_left_out_once_has_to_be_left_out_of_the_rest(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "pictures" / "train" / "dark" / "0.png").write_bytes(b"no picture")
    command = ("bench", "run", "own-pictures", "--size", "smoke", "--results", tmp_path / "r", "--only", "scratch")
    assert cli(*command, "--target", "./pictures", "--seed", 0, "--skip-corrupt")[0] == 0
    code, said = cli(*command, "--target", "./pictures", "--seed", 0, "--seed", 1)
    assert code == 1 and len(said.splitlines()) == 1 and "--skip-corrupt" in said
    assert ResultStore(tmp_path / "r").failed_ids() == []


def test_a_link_to_nothing_is_one_sentence(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "pictures" / "train" / "dark" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    code, said = cli("bench", "run", "own-pictures", "--size", "smoke", "--target", "./pictures")
    assert code == 1 and len(said.splitlines()) == 1 and "gone.png cannot be read (No such file" in said


def test_one_folder_has_one_name(mine, tmp_path, monkeypatch):
    """Else its results are not found again, and a source may learn from what a choice is judged on."""
    monkeypatch.chdir(mine)
    (mine / "sets").mkdir()
    (mine / "pictures").rename(mine / "sets" / "mine")
    (mine / "link").symlink_to(mine / "sets" / "mine")
    whole = str(mine / "sets" / "mine")
    for name in ("sets/mine", "sets/mine/", "./sets/mine", whole, f"{whole}/", "./sets/../link"):
        assert place_of_data(name, mine) == whole
    assert place_of_data("org/name", mine) == "org/name" and place_of_data("pets", mine) == "pets"
    monkeypatch.setenv("MASTERKEY_DATA", str(mine / "sets"))
    assert same_data("mine", whole) and not same_data("mine", str(mine)) and not same_data("mine", "org/mine")
    (mine / "also").symlink_to(mine / "sets")
    monkeypatch.setenv("MASTERKEY_DATA", str(mine / "also"))  # by way of a link
    assert same_data("mine", whole) and same_data("stl10", "tanganke/stl10")

    text = MINE.replace('"./pictures"', f'"{whole}/"').replace('"scratch:./pictures/../pictures"', '"scratch:again"')
    (mine / "mine.toml").write_text(
        text.replace("lrs = [1e-3]", "lrs = [1e-3, 2e-3]") + 'data.again = { name = "mine" }\n'
    )
    experiment = load_experiment(str(mine / "mine.toml"), "small").only(arms=["other"])
    (source, _), *_ = (
        (run.needs[0].config.data, run) for run in experiment.plan(ResultStore(tmp_path / "r")) if run.needs
    )
    assert source.evaluate == "validation"  # as its taker
    assert experiment.is_same_data("again", "mine")


def test_a_bank_for_certain_networks_alone_is_gone_on_with(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    chosen = '{ name = "bank", bank = "scale-space-8", steps = [["select", { kernel = 3 }]] }'
    text = MINE.replace('{ name = "bank", bank = "scale-space-8" }', chosen).replace(
        'name = "convnext_atto", kwargs = { depths = [1, 1, 1, 1], dims = [8, 8, 8, 8] }',
        'name = "mobilenetv3_small_050"',
    )
    (mine / "mine.toml").write_text(text)
    command = ("bench", "run", "mine.toml", "--size", "small", "--results", tmp_path / "r", "--only", "bank")
    assert cli(*command, "--seed", 0)[1].endswith("1 done\n")
    assert cli(*command, "--seed", 0)[1].endswith("1 already there\n")


def test_a_folder_here_is_named_with_its_dot(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    code, said = cli("bench", "run", "own-pictures", "--size", "smoke", "--target", "pictures")
    assert code == 1 and "has no target 'pictures'" in said and said.endswith("; the folder here is ./pictures\n")


def test_failures_that_say_the_same_are_said_once_at_the_end(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    (mine / "mine.toml").write_text(MINE.replace('"scale-space-8"', '"checkpoint:none.pth"'))
    code, said = cli("bench", "run", "mine.toml", "--size", "small", "--results", tmp_path / "r", "--only", "bank")
    (last,) = (line for line in said.splitlines() if line.startswith("failed "))
    assert code == 1 and last.count("none.pth") == 1
    assert last.split(": ")[0].count(", ") == 1  # two seeds


def test_a_batch_size_is_that_of_every_run(mine):
    experiment = load_experiment(str(mine / "mine.toml"), "small")
    nowhere = ResultStore(mine / "none")
    before, after = (expected_runs(e, nowhere) for e in (experiment, experiment.with_batch_size(3)))
    assert {run.config.train.batch_size for run in before} == {6, 8}
    assert {run.config.train.batch_size for run in after} == {3}
    assert not {run.config.id for run in before} & {run.config.id for run in after}
    assert experiment.with_batch_size(None) is experiment


@pytest.mark.parametrize(
    "arms",
    [
        '{ name = "scratch", vary = { "train.batch_size" = [2, 4] } }',
        '{ name = "scratch" }, { name = "big", train = { batch_size = 4 } }',
    ],
)
def test_batch_sizes_that_are_compared_are_not_made_one(mine, cli, arms, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    head, _, rest = MINE.partition("arms = [")
    Path("mine.toml").write_text(f"{head}arms = [{arms}]\n{rest.partition(chr(10) + ']' + chr(10))[2]}")
    where = ("mine.toml", "--size", "small", "--results", tmp_path / "r", "--batch-size", 3)
    for command in (("run", "--dry-run"), ("run",), ("report", "-o", tmp_path / "out")):
        code, said = cli("bench", command[0], *where, *command[1:])
        assert code == 1 and "compare batch sizes, so they cannot have one for all runs" in said, said
    assert not (tmp_path / "r").exists() and not (tmp_path / "out").exists()


def test_a_target_that_no_arm_is_for_is_refused(mine, cli, monkeypatch):
    monkeypatch.chdir(mine)
    code, said = cli("bench", "run", "sources", "--size", "small", "--target", "./pictures")
    assert code == 1 and "experiment sources has no arm for --target ./pictures" in said


def test_a_folder_that_is_not_there_has_no_experiments(mine, cli, monkeypatch):
    monkeypatch.chdir(mine)
    assert cli("bench", "list", "own-pictures", "--target", "./pictures")[0] == 0
    code, said = cli("bench", "list", "--target", "./picturse")
    assert code == 1 and "'./picturse' is no folder of pictures" in said


def test_a_source_by_other_labels_of_the_same_pictures_is_refused(mine):
    """Its validation part is another one, so it would know what the target is judged on."""
    text = MINE.replace('"scratch:./pictures/../pictures"', '"scratch:fine"')
    columns = 'data.fine = { name = "./pictures", label = "fine_label" }\n'
    (mine / "mine.toml").write_text(text + columns)
    with pytest.raises(BenchmarkError, match="'fine' and 'mine' are the same pictures by other labels"):
        list(load_experiment(str(mine / "mine.toml"), "small").plan(ResultStore(mine / "none")))


def test_configurations_of_a_data_set_are_sets_of_their_own(mine):
    text = MINE.replace('"scratch:./pictures/../pictures"', '"scratch:real"')
    (mine / "mine.toml").write_text(text + 'data.real = { name = "./pictures", subset = "real" }\n')
    experiment = load_experiment(str(mine / "mine.toml"), "small")
    assert not experiment.is_same_data("mine", "real")
    sources = [run for run in experiment.plan(ResultStore(mine / "none")) if run.target == "real"]
    assert sources and {run.config.data.evaluate for run in sources} == {"test"}


def test_only_from_new_weights_are_filters_kept_for_others(mine):
    (mine / "mine.toml").write_text(MINE.replace("kwargs = {", 'initial = "pretrained", kwargs = {'))
    with pytest.raises(BenchmarkError, match="which begins with pretrained weights; only of one from new weights are"):
        list(load_experiment(str(mine / "mine.toml"), "small").plan(ResultStore(mine / "none")))


@pytest.mark.parametrize("key", ["num_classes", "checkpoint_path", "pretrained"])
def test_what_a_run_says_of_its_network_is_no_keyword(mine, key):
    (mine / "mine.toml").write_text(MINE.replace("kwargs = {", f"kwargs = {{ {key} = 1,"))
    with pytest.raises(BenchmarkError, match=rf"\[networks\.small\]: kwargs has {key}, which"):
        load_experiment(str(mine / "mine.toml"), "small")


def test_a_number_has_one_spelling(mine):
    """Else one run would be done twice."""
    nowhere = ResultStore(mine / "none")
    text = MINE.replace("warmup_epochs = 0 }", "warmup_epochs = 0, mixup = 0.0, scale = [1.0, 1.0], clip_grad = 2.0 }")
    ids = []
    for written in (text, text.replace("0.0,", "0,").replace("[1.0, 1.0]", "[1, 1]").replace("= 2.0", "= 2")):
        (mine / "mine.toml").write_text(written)
        ids.append([run.config.id for run in expected_runs(load_experiment(str(mine / "mine.toml"), "small"), nowhere)])
    assert ids[0] == ids[1] and len(set(ids[0])) > 4


def test_paths_are_absolute_and_other_names_stay(tmp_path):
    (tmp_path / "a.toml").write_text(
        MINE.replace('bank = "scale-space-8"', 'vary = { bank = ["./keys", "org/bank"] }').replace(
            'bank = "random"', 'bank = "~/x"'
        )
    )
    experiment = load_experiment(str(tmp_path / "a.toml"), "paper")
    banks = {str(arm["name"]).split("/")[0]: arm.get("bank") for arm in experiment.arms}
    assert banks["random"] == str(Path("~/x").expanduser().resolve())
    assert [arm["bank"] for arm in experiment.arms if "bank/" in arm["name"]] == [str(tmp_path / "keys"), "org/bank"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("targets = [", "cannot be read"),
        (MINE.replace('models = ["small"]', ""), "does not say models"),
        (MINE.replace("pictures = {", "picture = {"), "says 'picture', which means nothing; did you mean pictures"),
        (MINE.replace('targets = ["mine"]', 'targets = "mine"'), "targets is 'mine', which is no list"),
        (MINE.replace('{ name = "scratch" }', '{ bank = "random" }'), "arm 1 has no name"),
        (MINE + "[sizes.smoke]\n", "has no size 'small'; it has smoke"),
    ],
)
def test_a_file_that_means_nothing_is_refused_in_one_sentence(tmp_path, text, sentence):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(BenchmarkError, match=r"experiment .*bad.toml.*") as refused:
        load_experiment(str(tmp_path / "bad.toml"), "small")
    assert sentence in str(refused.value)
    with pytest.raises(BenchmarkError, match=r"cannot be read: .*No such file"):
        load_experiment(str(tmp_path / "none.toml"), "small")


def test_the_files_that_come_with_masterkey_say_nothing_unknown():
    for name in experiment_names():
        for size in ("smoke", "small", "paper"):
            assert read_built_in(name, size)["shows"], name
