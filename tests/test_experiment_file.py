"""Experiment files that mean nothing: each is refused in one sentence, before the first run."""

import pytest

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.experiment import load_experiment
from masterkey.benchmarks.experiment_file import sizes_of_file
from masterkey.benchmarks.own_data import check_folders
from masterkey.benchmarks.store import ResultStore

FILE = """
layout = "arms"
targets = ["mine"]
models = ["test_convnext"]
seeds = [0]
lrs = [1e-3]
[data.mine]
name = "./mine"
[pictures]
pixels = 32
[train]
epochs = 1
warmup_epochs = 0
[[arms]]
name = "scratch"
[[arms]]
name = "random"
bank = "random"
"""

WRONG = {
    ('targets = ["mine"]', "targets = [1]"): "targets has 1, which is no text",
    ('targets = ["mine"]', 'targets = "mine"'): "targets is 'mine', which is no list",
    ('targets = ["mine"]', 'targets = ["flower17"]'): "no data set named 'flower17'; did you mean flowers",
    ("seeds = [0]", 'seeds = ["a"]'): "seeds has 'a', which is no whole number",
    ("seeds = [0]", "seeds = [0.5]"): "seeds has 0.5, which is no whole number",
    ("seeds = [0]", "seeds = [true]"): "seeds has True, which is no whole number",
    ("seeds = [0]", "seeds = [-1]"): "seed is -1; it must be from 0 to 2**63 - 1",
    ("seeds = [0]", "seeds = [9223372036854775808]"): "seed is 9223372036854775808; it must be from 0 to 2**63 - 1",
    ("seeds = [0]", "seeds = [0, 0]"): "seeds has a value twice: 0, 0",
    ("lrs = [1e-3]", "lrs = []"): "does not say lrs",
    ("lrs = [1e-3]", 'lrs = ["x"]'): "lrs has 'x', which is no number",
    ("lrs = [1e-3]", "lrs = [nan]"): "lrs has nan, which is no number",
    ("lrs = [1e-3]", "lrs = [-1.0]"): "lr is -1; it must be above 0",
    ("lrs = [1e-3]", "lrs = [1e-3, 0.001]"): "lrs has a value twice",
    ("epochs = 1", "epoch = 1"): "[train] has no 'epoch'; did you mean epochs?",
    ("epochs = 1", "lr = 5.0"): "[train] says lr; say lrs for the whole experiment instead",
    ("epochs = 1", 'epochs = "1"'): "epochs is '1', which is no whole number",
    ("epochs = 1", "epochs = 2.0"): "epochs is 2.0, which is no whole number",
    ("epochs = 1", "epochs = 2020-01-01"): "train: epochs is 2020-01-01, which is no text, number or truth value",
    ('bank = "random"', 'bank = "random"\ninject = { seed = nan }'): "inject: seed is nan, which is no text, number",
    ('name = "./mine"', 'name = "./mine"\nseeds = []'): "[data.mine]: seeds is empty",
    ("[[arms]]", "[sizes]\n[[arms]]"): "sizes is empty; it may have smoke, small, paper",
    ("epochs = 1", 'amp = "false"'): "amp is 'false', which is no true or false",
    ("epochs = 1", "scale = 0.5"): "scale is 0.5, which is no list of 2, each a number",
    ("epochs = 1", "scale = [0.1, 0.5, 1]"): "which is no list of 2",
    ("epochs = 1", "ratio = [0, 1]"): "ratio is (0, 1); it must be ratios above 0",
    ("epochs = 1", "smoothing = 3"): "smoothing is 3; it must be from 0 to below 1",
    ("epochs = 1", "batch_size = 0"): "batch_size is 0; it must be 1 or more",
    ("epochs = 1", "epochs = 1\nfreeze_epoch = 1"): "freeze_epoch is 1 of 1 epochs, so nothing would be frozen",
    ("epochs = 1", "min_lr = 0.01"): "min_lr is 0.01, above the lr of 0.001",
    ("warmup_epochs = 0", "warmup_epochs = 1"): "warmup_epochs is 1 of 1 epochs, so lr is never reached",
    ("epochs = 1", "epochs = 3\nfreeze_epoch = 1"): "arm 'random': freeze_epoch is 1, but the bank goes in frozen",
    (
        'name = "scratch"',
        'name = "scratch"\ninject = { layers = 1 }',
    ): "inject is what is done with a bank, and it has none",
    ('name = "scratch"', 'name = "scratch"\nsteps = [["signed", {}]]'): "steps is what is done with a bank",
    ('name = "scratch"', 'name = "scratch"\nkind = "pointwise"'): "kind is what is done with a bank",
    ('name = "scratch"', 'name = "scratch"\nbias = false'): "bias is what is done with a bank",
    ('name = "scratch"', 'name = "scratch"\nteacher = "scratch:mine"'): "'weight-selection' and a teacher go together",
    ('name = "scratch"', 'name = "scratch"\ninitial = "weight-selection"'): "and a teacher go together",
    ('name = "scratch"', 'name = "scratch"\nvary = { "train.weight_decay" = [1, 1.0] }'): "has a value twice: 1, 1.0",
    ('name = "scratch"', 'name = "scratch"\nvary = { models = ["a", "b"] }'): "varies 'models', which is no part of",
    ('name = "scratch"', 'name = "scratch"\nvary = { "" = [1] }'): "arm 'scratch/1' has no ''; there are name, bank",
    ("seeds = [0]", 'seeds = [0]\nby_size = ["a", ["b", 3]]'): "by_size has 3, which is no text",
    ("seeds = [0]", 'seeds = [0]\nby_size = ["a", ["b", "a"]]'): "by_size has a value twice: a, b, a",
    ("epochs = 1", "clip_grad = inf"): "clip_grad is inf, which is no text, number or truth value",
    ("pixels = 32", 'pixels = "32"'): "pixels is '32', which is no whole number",
    ("pixels = 32", "pixels = -5"): "pixels is -5; it must be 1 or more",
    ("pixels = 32", "train_size = 0"): "train_size is 0; it must be 1 or more",
    ("epochs = 1", 'train_interpolation = "cubic"'): "train_interpolation is 'cubic'; did you mean bicubic?",
    ("pixels = 32", "crop_pct = 0"): "crop_pct is 0; it must be above 0 and at most 1",
    ("pixels = 32", "validation = 1"): "validation is 1; it must be above 0 and below 1",
    ("pixels = 32", "split_seed = -1"): "split_seed is -1; it must be from 0 to 2**32 - 1",
    ('name = "./mine"', 'name = "./mine"\nper_class = 0'): "per_class is 0; it must be 1 or more",
    ('name = "./mine"', 'name = "./mine"\nview = "natral"'): "view is 'natral'; did you mean natural?",
    ('[data.mine]\nname = "./mine"', '[data]\nmine = "./mine"'): "[data.mine] is './mine', which is no table",
    ('name = "./mine"', 'name = "./mine"\npixel = 3'): "has no 'pixel'; did you mean pixels?",
    ('name = "./mine"', 'name = "./mine"\nevaluate = "validation"'): "[data.mine] says evaluate; say evaluate for",
    ('name = "./mine"', 'name = "./mine"\ntrain = 3'): "[data.mine]: train is 3, which is no table",
    ('name = "./mine"', 'name = "./mine"\nseeds = 3'): "[data.mine]: seeds is 3, which is no list",
    ('name = "./mine"', 'name = "./mine"\nlrs = 1e-3'): "[data.mine]: lrs is 0.001, which is no list",
    ('name = "./mine"', 'name = "./mine"\nlrs = []'): "[data.mine]: lrs is empty; a run has a learning rate",
    ('name = "./mine"', 'name = "./mine"\nlrs = ["x"]'): "[data.mine]: lrs has 'x', which is no number",
    ('name = "./mine"', 'name = "./mine"\nlrs = [-1.0]'): "lr is -1; it must be above 0",
    ('name = "./mine"', 'name = "./mine"\ntuned_on = "mine"'): "[data.mine]: tuned_on is 'mine'; there are",
    ('name = "./mine"', 'name = "./mine"\ntuned_on = 3'): "[data.mine]: tuned_on is 3; there are",
    (
        'name = "./mine"',
        'name = "./mine"\ntuned_on = "it"\n[data.it]\ntuned_on = "mine"',
    ): "tuned_on takes the rates that it chooses, so neither may say otherwise",
    (
        'name = "./mine"',
        'name = "./mine"\ntuned_on = "it"\nlrs = [0.1]\n[data.it]\nname = "./mine"',
    ): "tuned_on takes the rates that it chooses, so neither may say otherwise",
    ('name = "./mine"', 'name = "./none"'): "is no data folder",
    (
        "[[arms]]",
        "[networks.test_convnext]\nkwarg = {}\n[[arms]]",
    ): "says 'kwarg', which means nothing; did you mean",
    ("[[arms]]", '[networks]\ntest_convnext = "x"\n[[arms]]'): "[networks.test_convnext] is 'x', which is no table",
    ("[[arms]]", "[sizes]\nsmoke = 3\n[[arms]]"): "sizes: smoke is 3, which is no table",
    ("[[arms]]", "[sizes.tiny]\nseeds = [0]\n[[arms]]"): "sizes says 'tiny', which means nothing",
    ("[[arms]]", "[sizes.smoke]\ntarin = {}\n[[arms]]"): "says 'tarin', which means nothing; did you mean train?",
    ('bank = "random"', 'bnak = "random"'): "arm 'random' has no 'bnak'; did you mean bank?",
    ('bank = "random"', "bank = 3"): "arm 'random' takes its filters from 3, which is no text",
    ('bank = "random"', 'inject = "x"'): "arm 'random': inject is 'x', which is no table",
    ('bank = "random"', 'steps = ["shuffled"]'): "steps is ['shuffled'], which is no list of any length",
    ('bank = "random"', 'vary = "x"'): "arm 'random': vary is 'x', which is no table",
    ('bank = "random"', 'vary = { "inject.layers" = 3 }'): "vary 'inject.layers' is 3, which is no list of values",
    ('bank = "random"', 'vary = { "injct.layers" = [1] }'): "arm 'random/1' has no 'injct'; did you mean inject?",
    ('bank = "random"', 'bank = "random"\nvary = { "bank.x" = [1] }'): "but its bank is no table",
    ('bank = "random"', 'bank = "random"\ntrain = { epoch = 3 }'): "[train] has no 'epoch'",
    ('bank = "random"', 'bank = "random"\nkind = "dephwise"'): "kind is 'dephwise'; did you mean depthwise or dense?",
    ('bank = "random"', 'initial = "pretraind"'): "initial is 'pretraind'; did you mean pretrained?",
    (
        'bank = "random"',
        'bank = "random"\nmodels = ["test_convnet"]',
    ): "none of the models; did you mean test_conv",
    ('bank = "random"', 'bank = "random"\ntargets = ["mien"]'): "none of the targets; did you mean mine?",
    ('bank = "random"', 'bank = "random"\n[[arms]]\nname = "random"'): "has two arms named 'random'; rename one",
    ('bank = "random"', 'bank = "random"\n[[arms]]\nname = 3'): "arm 3 has no name, or one that is no text",
    ('layout = "arms"', 'layout = "arm"'): "layout is 'arm'; did you mean arms?",
    ('layout = "arms"', 'controls = ["randm"]'): "controls name 'randm', no arm of it; did you mean random?",
    ('layout = "arms"', "controls = [1]"): "controls has 1, which is no text",
    ('layout = "arms"', 'layout = "matrix"\nreference = "selfer"'): "reference is 'selfer'; did you mean selffer?",
    ('layout = "arms"', 'evaluate = "valid"'): "evaluate is 'valid'; did you mean validation?",
    ('layout = "arms"', 'source_seed = "a"'): "source_seed is 'a', which is no whole number",
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.items(), ids=[sentence[:40] for sentence in WRONG.values()])
def test_a_file_that_means_nothing_is_refused_before_the_first_run(tmp_path, monkeypatch, change, sentence):
    monkeypatch.setenv("MASTERKEY_DATA", str(tmp_path / "no-data"))
    old, new = change
    assert old in FILE
    (tmp_path / "file.toml").write_text(FILE.replace(old, new, 1))
    for part, name in (("train", "ant"), ("test", "ant"), ("train", "bee")):
        (tmp_path / "mine" / part / name).mkdir(parents=True)
        (tmp_path / "mine" / part / name / "0.png").write_bytes(b"")
    with pytest.raises(BenchmarkError) as refused:
        experiment = load_experiment(str(tmp_path / "file.toml"), "smoke")
        experiment.plan(ResultStore(tmp_path / "results"))
        check_folders(experiment)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", ["steps = [1]", 'inject = { freeze = false }\nbias = "no"'])
def test_an_arm_that_is_left_out_must_make_sense_too(tmp_path, field):
    """A report names it, as a control that is missing."""
    (tmp_path / "file.toml").write_text(f'{FILE}[[arms]]\nname = "odd"\nbank = "random"\n{field}\n')
    with pytest.raises(BenchmarkError, match=r"experiment file: arm 'odd': (steps is \[1\]|bias is 'no'), which is no"):
        load_experiment(str(tmp_path / "file.toml"), "smoke")


def test_the_file_itself_is_one(tmp_path):
    (tmp_path / "file.toml").write_text(FILE)
    experiment = load_experiment(str(tmp_path / "file.toml"), "smoke")
    assert len(experiment.plan(ResultStore(tmp_path / "results"))) == 2


def test_what_is_wrong_at_another_size_is_said_there(tmp_path):
    file = tmp_path / "file.toml"
    file.write_text(FILE.replace("[[arms]]", "[sizes.smoke]\n[sizes.paper]\nmodels = 3\n[[arms]]", 1))
    load_experiment(str(file), "smoke")
    with pytest.raises(BenchmarkError, match="models is 3, which is no list"):
        load_experiment(str(file), "paper")


@pytest.mark.parametrize(
    ("sizes", "sentence"), [("sizes = 3", "is 3, which is no table"), ("[sizes.big]", "says 'big'")]
)
def test_sizes_that_mean_nothing_are_refused_where_they_are_listed(tmp_path, sizes, sentence):
    (tmp_path / "file.toml").write_text(f"{sizes}\n{FILE}")
    with pytest.raises(BenchmarkError, match=sentence):
        sizes_of_file(tmp_path / "file.toml")
