"""Which filter goes where: policies, masks, kernel and scale rules, and the controls."""

import pytest
import torch

from masterkey import Bank
from masterkey.closed_form.scale_space import scale_space_filters
from masterkey.errors import MasterkeyError, PlanError
from masterkey.fit import fit_kernel
from masterkey.metadata import Layer, Metadata, Source
from masterkey.plan import Target, make_plan, nearest_kernel


def make_bank(*layers, name="made", kind="depthwise"):
    """A bank of (kernel, filters, factor) layers whose filter i, counted over all layers, is i + 1 everywhere."""
    tensors, about, count = {}, [], 0
    for i, (kernel, filters, factor) in enumerate(layers):
        values = torch.arange(count + 1.0, count + 1 + filters).view(-1, 1, 1, 1)
        tensors[f"l{i}.weight"] = values.expand(-1, 1, *kernel).clone()
        about.append(Layer(f"l{i}.weight", kernel, filters, factor=factor))
        count += filters
    return Bank(tensors, Metadata(name, kind, Source("file", "made"), tuple(about), "forward"))


def make_targets(*layers):
    """Targets of (kernel, filters), two a stage, with random initial weights."""
    generator = torch.Generator().manual_seed(1)
    last = max(len(layers) - 1, 1)
    return [
        Target(f"stages.{i // 2}.{i % 2}.dw", i // 2, i / last, torch.randn(n, 1, *kernel, generator=generator))
        for i, (kernel, n) in enumerate(layers)
    ]


def ids(assignment):
    """The numbers of the filters that a layer gets, read at the centre."""
    filters = assignment.filters
    return [int(v) for v in filters[:, 0, filters.shape[2] // 2, filters.shape[3] // 2]]


K3, K5, K7 = (3, 3), (5, 5), (7, 7)


class TestStack:
    def test_one_cursor_for_each_kernel_size_running_on_and_wrapping(self):
        bank = make_bank((K3, 3, 1.0), (K5, 4, 1.0), (K3, 2, 1.0))  # 3x3: 1 2 3 8 9, 5x5: 4 5 6 7
        plan = make_plan(make_targets((K3, 2), (K5, 3), (K3, 4), (K5, 2), (K3, 6)), bank)
        assert [ids(a) for a in plan.assignments] == [[1, 2], [4, 5, 6], [3, 8, 9, 1], [7, 4], [2, 3, 8, 9, 1, 2]]
        assert [a.wrapped for a in plan.assignments] == [False, False, True, True, True]

    def test_targets_of_two_sizes_that_share_a_source_size_have_a_cursor_each(self):
        plan = make_plan(make_targets((K3, 2), (K5, 2), (K3, 1), (K5, 1)), make_bank((K7, 9, 1.0)))
        assert [ids(a) for a in plan.assignments] == [[1, 2], [1, 2], [3], [3]]

    def test_exactly_full_is_not_wrapped(self):
        plan = make_plan(make_targets((K3, 2), (K3, 2)), make_bank((K3, 4, 1.0)))
        assert not any(a.wrapped for a in plan.assignments)

    def test_spans_name_source_layers(self):
        bank = make_bank((K3, 3, 1.0), (K3, 2, 1.0))
        plan = make_plan(make_targets((K3, 4), (K3, 4)), bank)
        spans = [[str(span) for span in a.spans] for a in plan.assignments]
        assert spans == [["l0[0:3]", "l1[0:1]"], ["l1[1:2]", "l0[0:3]"]]


class TestKernelChoice:
    @pytest.mark.parametrize(
        ("target", "available", "chosen"),
        [
            (K5, [K3, K5, K7], K5),
            (K5, [K3, K7, (9, 9)], K7),
            ((9, 9), [K3, K5, K7], K7),
            ((2, 2), [K3, K5, K7], K3),
            ((1, 5), [K3, K5, K7], K5),
            ((1, 11), [K3, K5, K7], K7),
            ((11, 1), [(1, 5), (5, 1), K3], (5, 1)),
            ((3, 5), [(5, 3), K5], K5),
        ],
    )
    def test_exact_then_nearest_larger_then_nearest_smaller(self, target, available, chosen):
        assert nearest_kernel(target, available) == chosen

    def test_the_rule_fits_what_was_chosen(self):
        bank = Bank.from_pretrained("scale-space-8").at(7)
        targets = make_targets((K5, 8), ((9, 9), 8))
        for rule in ("crop", "resample"):
            for assignment in make_plan(targets, bank, kernel=rule).assignments:
                expected = fit_kernel(scale_space_filters(K7), assignment.target.kernel, rule)
                assert torch.equal(assignment.filters, expected)
                assert assignment.fitted.startswith(f"{rule} 7x7 to ")

    def test_exact_refuses_another_size_unless_masked(self):
        targets, bank = make_targets((K3, 2), (K5, 2)), make_bank((K3, 4, 1.0))
        with pytest.raises(PlanError, match="exact"):
            make_plan(targets, bank, kernel="exact")
        plan = make_plan(targets, bank, kernel="exact", layers=1)
        assert ids(plan.assignments[0]) == [1, 2]

    @pytest.mark.parametrize("what", ["policy", "kernel", "scale"])
    def test_unknown_words_are_refused(self, what):
        with pytest.raises(PlanError, match=r"unknown .*'nonsense'; known: \w+"):
            make_plan(make_targets((K3, 2)), make_bank((K3, 4, 1.0)), **{what: "nonsense"})


class TestSample:
    def test_the_seed_decides(self):
        targets, bank = make_targets((K3, 20), (K5, 20)), make_bank((K3, 50, 1.0), (K5, 50, 1.0))
        drawn = [[ids(a) for a in make_plan(targets, bank, policy="sample", seed=s).assignments] for s in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert all(1 <= i <= 50 for i in drawn[0][0])
        assert all(51 <= i <= 100 for i in drawn[0][1])

    def test_no_filter_twice_while_there_are_enough(self):
        targets = make_targets((K3, 50), (K3, 80))
        enough, more = make_plan(targets, make_bank((K3, 50, 1.0)), policy="sample").assignments
        assert sorted(ids(enough)) == list(range(1, 51))
        assert len(ids(more)) == 80

    def test_torchs_own_generator_is_left_alone(self):
        state = torch.get_rng_state()
        for name in ("random", "gaussian-covariance", "shuffled-pixels"):
            make_plan(make_targets((K3, 8)), Bank.from_pretrained(name), policy="sample")
        assert torch.equal(torch.get_rng_state(), state)


class TestLayerwise:
    def test_layer_i_from_layer_i(self):
        targets, bank = make_targets((K3, 2), (K5, 3)), make_bank((K3, 2, 1.0), (K5, 3, 1.0), (K7, 9, 1.0))
        plan = make_plan(targets, bank, policy="layerwise")
        assert [ids(a) for a in plan.assignments] == [[1, 2], [3, 4, 5]]

    def test_other_shapes_are_refused_unless_masked(self):
        targets, bank = make_targets((K3, 2), (K5, 3)), make_bank((K3, 2, 1.0), (K5, 4, 1.0))
        with pytest.raises(PlanError, match=r"layerwise: layer 1 .*\[4, 1, 5, 5\].*\[3, 1, 5, 5\]"):
            make_plan(targets, bank, policy="layerwise")
        assert make_plan(targets, bank, policy="layerwise", layers=1).assignments[1] is None

    def test_a_bank_with_fewer_layers_is_refused(self):
        with pytest.raises(PlanError, match="is layer 1 of its kind, bank made has 1"):
            make_plan(make_targets((K3, 2), (K3, 2)), make_bank((K3, 2, 1.0)), policy="layerwise")

    @pytest.mark.parametrize("policy", ["stack", "sample"])
    def test_other_kinds_go_in_layerwise_only(self, policy):
        bank = make_bank(((1, 1), 4, 1.0), kind="pointwise")
        with pytest.raises(PlanError, match="layerwise"):
            make_plan(make_targets(((1, 1), 4)), bank, policy=policy)


class TestMask:
    targets = make_targets(*[(K3, 2 + i) for i in range(6)])
    bank = make_bank((K3, 11, 1.0))

    @pytest.mark.parametrize(
        ("mask", "meant"),
        [
            (None, [0, 1, 2, 3, 4, 5]),
            (2, [0, 1]),
            (-2, [4, 5]),
            (0, []),
            (99, [0, 1, 2, 3, 4, 5]),
            (-99, [0, 1, 2, 3, 4, 5]),
            ("stage:1", [2, 3]),
            ("stages.2.*", [4, 5]),
            ("*.0.dw", [0, 2, 4]),
            (["stage:0", "stages.2.1.dw"], [0, 1, 5]),
        ],
    )
    def test_what_a_mask_means(self, mask, meant):
        plan = make_plan(self.targets, self.bank, layers=mask)
        assert [i for i, selected in enumerate(plan.selected) if selected] == meant

    @pytest.mark.parametrize("mask", ["stage:7", "nothing.*", [], ["stage:9", "x"], "stage:x"])
    def test_a_mask_that_means_nothing_is_an_error(self, mask):
        with pytest.raises(PlanError, match="matches none of the 6 layers"):
            make_plan(self.targets, self.bank, layers=mask)

    @pytest.mark.parametrize(
        ("mask", "hint"),
        [
            ("stages.0", "; patterns match whole names: 'stages.0.*' or 'stage:0' is probably meant"),
            (["stages.0"], "; patterns match whole names: 'stages.0.*' or 'stage:0' is probably meant"),
            (["stages.0", "stage:1"], "; patterns match whole names: 'stages.0.*' or 'stage:0' is probably meant"),
            ("stages.0.1", "; patterns match whole names: 'stages.0.1.*' is probably meant"),
            ("1.dw", "; patterns match whole names: '*.1.dw' is probably meant"),
            ("nothing.*", "layers (stages.0.0.dw, stages.0.1.dw, stages.1.0.dw, …)"),
        ],
    )
    def test_a_part_of_a_name_is_told_from_a_pattern(self, mask, hint):
        with pytest.raises(PlanError) as caught:
            make_plan(self.targets, self.bank, layers=mask)
        assert str(caught.value).endswith(hint)

    @pytest.mark.parametrize("policy", ["stack", "sample"])
    def test_a_layer_gets_the_same_filters_whatever_the_mask(self, policy):
        whole = [ids(a) for a in make_plan(self.targets, self.bank, policy=policy).assignments]
        for mask in (1, 3, -1, -4, "stage:1", ["stage:2", "*.1.dw"]):
            plan = make_plan(self.targets, self.bank, policy=policy, layers=mask)
            assert [ids(a) for a in plan.assignments] == whole


class TestScale:
    def test_source_multiplies_by_what_the_source_does_and_divides_by_what_the_target_does(self):
        bank = make_bank((K3, 3, 1 / 3), (K3, 3, 1.0))
        plain, divided = make_targets((K3, 6)), make_targets((K3, 6))
        divided[0] = Target("x.dw", None, 0.0, divided[0].initial, factor=1 / 3)
        (got,) = make_plan(plain, bank).assignments
        expected = torch.tensor([1 / 3, 2 / 3, 1, 4, 5, 6])
        assert torch.allclose(got.filters[:, 0, 0, 0], expected)
        (got,) = make_plan(divided, bank).assignments
        assert torch.allclose(got.filters[:, 0, 0, 0], 3 * expected)
        assert torch.equal(got.filters[:3, 0, 0, 0], torch.tensor([1.0, 2, 3]))  # 1/3 over 1/3 is exactly 1

    def test_unit(self):
        bank = make_bank((K5, 6, 1 / 3))
        (got,) = make_plan(make_targets((K3, 6)), bank, scale="unit").assignments
        assert torch.allclose(got.filters.flatten(1).norm(dim=1), torch.ones(6))

    def test_unit_leaves_a_zero_filter_zero(self):
        bank = make_bank((K3, 2, 0.0))
        (got,) = make_plan(make_targets((K3, 2)), bank, scale="unit").assignments
        assert got.filters.count_nonzero() == 0

    @pytest.mark.parametrize("size", [1e-25, 1e25])
    def test_norms_of_very_small_and_large_filters(self, size):
        bank = make_bank((K3, 6, 1.0))
        scaled = Bank({name: tensor * size for name, tensor in bank.layers.items()}, bank.metadata)
        for rule in ("unit", "target"):
            plain, other = (make_plan(make_targets((K3, 6)), each, scale=rule) for each in (bank, scaled))
            assert torch.allclose(other.assignments[0].filters, plain.assignments[0].filters, rtol=1e-5)

    @pytest.mark.parametrize("factor", [1.0, 1 / 3])
    def test_target_takes_the_layers_own_deviation(self, factor):
        bank = make_bank((K3, 6, factor), (K3, 6, 1.0))
        targets = [
            Target("a", None, 0.0, 0.02 * torch.randn(4, 1, 3, 3)),
            Target("b", None, 1.0, torch.randn(8, 1, 3, 3)),
        ]
        for assignment in make_plan(targets, bank, scale="target").assignments:
            assert torch.allclose(assignment.filters.std(), assignment.target.initial.std(), rtol=1e-4)

    def test_target_refuses_a_layer_whose_initial_weights_do_not_vary(self):
        bank = make_bank((K3, 6, 1.0), (K3, 6, 1.0))
        for value in (0.0, 0.1):
            targets = [make_targets((K3, 6))[0], Target("flat.dw", None, 1.0, torch.full((6, 1, 3, 3), value))]
            with pytest.raises(PlanError, match=r"of flat\.dw do not vary, .* use scale='source' or 'unit'"):
                make_plan(targets, bank, scale="target")
            assert make_plan(targets, bank, scale="target", layers=1).selected == (True, False)


class TestControls:
    targets = make_targets((K7, 32), (K3, 40), ((1, 5), 24), (K7, 64), (K3, 24))

    def test_random_deals_each_layers_own_weights_anew(self):
        for seed in (0, 1):
            for assignment in make_plan(self.targets, Bank.from_pretrained("random"), seed=seed).assignments:
                got, initial = assignment.filters.flatten(), assignment.target.initial.flatten()
                assert torch.equal(got.sort().values, initial.sort().values)
                assert not torch.equal(got, initial)

    def test_random_depends_on_its_seed(self):
        one, two = (make_plan(self.targets, Bank.from_pretrained("random"), seed=seed) for seed in (0, 1))
        assert not torch.equal(one.assignments[0].filters, two.assignments[0].filters)

    @pytest.mark.parametrize("scale", ["source", "unit"])
    @pytest.mark.parametrize("kernel", ["crop", "resample"])
    @pytest.mark.parametrize("of", ["default", "7x7 only", "with factors"])
    def test_shuffled_pixels_has_the_norms_of_what_it_controls(self, tmp_path, of, kernel, scale):
        bank, name = Bank.from_pretrained("scale-space-8"), "shuffled-pixels"
        if of != "default":
            bank = bank.at(7) if of == "7x7 only" else make_bank((K7, 30, 1 / 3), (K3, 8, 0.5))
            name = f"shuffled-pixels:{bank.save_pretrained(tmp_path / 'bank')}"
        control = Bank.from_pretrained(name)
        plans = [make_plan(self.targets, b, kernel=kernel, scale=scale, seed=3) for b in (bank, control)]
        for true, shuffled in zip(*(plan.assignments for plan in plans), strict=True):
            assert true.filters.shape == shuffled.filters.shape
            norms = [a.filters.flatten(1).norm(dim=1) for a in (true, shuffled)]
            assert torch.allclose(*norms, rtol=1e-5)
            assert of == "with factors" or not torch.equal(true.filters, shuffled.filters)

    def test_shuffled_pixels_goes_in_layerwise_as_its_bank_does(self, tmp_path):
        bank = Bank.from_pretrained("scale-space-8").at(7).resized(5)
        control = Bank.from_pretrained(f"shuffled-pixels:{bank.save_pretrained(tmp_path / 'bank')}")
        (got,) = make_plan(make_targets((K5, 8)), control, policy="layerwise").assignments
        values = [
            torch.sort(filters.flatten(1)).values for filters in (got.filters, scale_space_filters(K7)[..., 1:6, 1:6])
        ]
        assert torch.equal(*values)

    def test_shuffled_pixels_keeps_the_exact_rule(self, tmp_path):
        path = make_bank((K7, 8, 1.0)).save_pretrained(tmp_path / "bank")
        with pytest.raises(PlanError, match="exact"):
            make_plan(make_targets((K3, 8)), Bank.from_pretrained(f"shuffled-pixels:{path}"), kernel="exact")

    def test_gaussian_covariance_widens_with_depth(self):
        targets = make_targets(*[(K7, 400)] * 5)
        position = torch.arange(7.0) - 3
        square_radius = position[:, None] ** 2 + position**2
        widths = []
        for assignment in make_plan(targets, Bank.from_pretrained("gaussian-covariance")).assignments:
            energy = assignment.filters.square().sum((0, 1))
            widths.append(float((energy * square_radius).sum() / energy.sum()))
        assert widths == sorted(widths)
        assert widths[-1] > 2 * widths[0]

    def test_gaussian_covariance_of_a_bank_takes_it_from_the_same_depth(self, tmp_path):
        # the first layer of the source has all its weight in the centre, the last none
        first, last = torch.zeros(6, 1, 7, 7), torch.randn(6, 1, 7, 7)
        first[..., 3, 3], last[..., 3, 3] = torch.randn(6, 1), 0
        about = tuple(Layer(name, K7, 6, factor=factor) for name, factor in (("a", 1 / 3), ("b", 1.0)))
        bank = Bank({"a": first, "b": last}, Metadata("two", "depthwise", Source("file", "two"), about, "forward"))
        control = Bank.from_pretrained(f"gaussian-covariance:{bank.save_pretrained(tmp_path / 'bank')}")
        targets = make_targets((K7, 4000), (K7, 100))
        one, two = (a.filters for a in make_plan(targets, control).assignments)
        assert one.sum((2, 3)).equal(one[..., 3, 3])
        assert two[..., 3, 3].abs().max() < 1e-5
        wanted = float(first[..., 3, 3].square().mean().sqrt()) / 3  # the source's factor counts
        assert float(one[..., 3, 3].square().mean().sqrt()) == pytest.approx(wanted, rel=0.1)

    def test_random_local_has_the_window_of_its_bank_and_nothing_else(self, tmp_path):
        # a window off the middle, and one filter far larger than the rest, which must not decide
        window = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)).square()
        drawn = torch.randn(2000, 1, 7, 7, generator=torch.Generator().manual_seed(1)) * window.sqrt()
        drawn[0] = torch.zeros(7, 7).index_fill(0, torch.tensor([0]), 1e4)
        about = (Layer("a", K7, 2000),)
        bank = Bank({"a": drawn}, Metadata("one", "depthwise", Source("file", "one"), about, "forward"))
        control = Bank.from_pretrained(f"random-local:{bank.save_pretrained(tmp_path / 'bank')}")
        (assignment,) = make_plan(make_targets((K7, 20_000)), control).assignments
        energy = assignment.filters.square().mean((0, 1))
        unit = drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        assert float(energy.sum()) == pytest.approx(1, abs=0.02)
        torch.testing.assert_close(energy, unit.square().mean((0, 1)), rtol=0.05, atol=1e-4)
        correlation = torch.corrcoef(assignment.filters.flatten(1).T)
        assert (correlation - torch.eye(49)).abs().max() < 0.05
        assert len(assignment.filters.flatten(1).unique(dim=0)) == 20_000

    def test_random_local_fits_the_window_to_other_kernels(self):
        control = Bank.from_pretrained("random-local")  # of scale-space-8: most of it in the middle
        plan = make_plan(make_targets((K3, 500), (K7, 500)), control)
        for assignment in plan.assignments:
            energy = assignment.filters.square().mean((0, 1))
            assert energy.argmax() == energy.numel() // 2

    @pytest.mark.parametrize("control", ["shuffled-pixels", "random-local", "gaussian-covariance"])
    def test_controls_of_another_kind_are_refused(self, tmp_path, control):
        path = make_bank(((1, 1), 4, 1.0), kind="pointwise").save_pretrained(tmp_path / "bank")
        with pytest.raises(MasterkeyError, match="of kind pointwise"):
            Bank.from_pretrained(f"{control}:{path}")

    @pytest.mark.parametrize(
        "name", ["scale-space-8", "gaussian-covariance", "random", "random-local", "shuffled-pixels"]
    )
    def test_the_same_seed_gives_the_same_bank(self, name):
        plans = [make_plan(self.targets, Bank.from_pretrained(name), seed=5) for _ in range(2)]
        for one, two in zip(*(plan.assignments for plan in plans), strict=True):
            assert torch.equal(one.filters, two.filters)


def test_random_8_deals_out_eight_filters_of_each_kernel():
    targets = [Target(f"layer{i}", None, 0.0, torch.randn(20, 1, k, k)) for i, k in enumerate((3, 5, 3))]
    plan = make_plan(targets, Bank.from_pretrained("random-8"), seed=3)
    dealt = [assignment.filters for assignment in plan.assignments if assignment is not None]
    threes = torch.cat([dealt[0], dealt[2]]).flatten(1)
    assert len(threes.unique(dim=0)) == 8 and len(dealt[1].flatten(1).unique(dim=0)) == 8
    assert torch.equal(threes[:8], threes[8:16])
    assert set(threes[0].tolist()) <= set(targets[0].initial.flatten().tolist())


def test_a_list_of_numbers_is_no_mask():
    with pytest.raises(PlanError, match="several patterns"):
        make_plan([Target("a", None, 0.0, torch.randn(8, 1, 3, 3))], Bank.from_pretrained("random"), layers=[0, 1])
