import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.mixup import mixup_target
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import functional as TF

from masterkey.benchmarks.augment import (
    Mixing,
    augment,
    center_crop,
    draw_crops,
    draw_mixing,
    jitter_colors,
    resample,
    soft_targets,
)
from masterkey.benchmarks.config import TrainConfig
from masterkey.benchmarks.distributed import Group
from masterkey.benchmarks.draws import Purpose, epoch_order, normal, random_bits, step_seed, uniform

EVERYTHING = TrainConfig(color_jitter=0.4, reprob=0.5)
NOTHING = TrainConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0)
MANY = torch.arange(20_000)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images():
    return torch.randint(0, 256, (12, 36, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalized(images):
    scaled = images.permute(0, 3, 1, 2).double() / 255
    return TF.normalize(scaled, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).float()


# --- draws ---


def test_the_hash_is_splitmix64():
    # the first outputs of the reference implementation for the seeds 0 and 1234567
    assert int(random_bits(0)) % 2**64 == 0xE220A8397B1DCDAF
    assert int(random_bits(1234567)) % 2**64 == 6457827717110365317


def test_uniform_draws_fill_the_unit_interval_and_are_uncorrelated():
    draws = uniform(3, 5, MANY, Purpose.CROP, 4)
    assert draws.dtype == torch.float64 and draws.min() >= 0 and draws.max() < 1
    assert torch.allclose(draws.mean(0), torch.full((4,), 0.5, dtype=torch.float64), atol=0.01)
    assert torch.allclose(torch.corrcoef(draws.T), torch.eye(4, dtype=torch.float64), atol=0.03)
    others = [
        uniform(4, 5, MANY, Purpose.CROP),
        uniform(3, 6, MANY, Purpose.CROP),
        uniform(3, 5, MANY + 1, Purpose.CROP),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack((draws[:, 0], other[:, 0])))[0, 1]) < 0.03


def test_normal_draws_have_the_moments_of_a_normal_distribution():
    draws = normal(0, 0, MANY, Purpose.NOISE, 3)
    assert torch.isfinite(draws).all()
    assert draws.mean().abs() < 0.02 and (draws.std() - 1).abs() < 0.02 and (draws**4).mean().sub(3).abs() < 0.15


def test_an_epochs_order_is_a_permutation_by_seed_and_epoch():
    order = epoch_order(1000, 0, 0)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, epoch_order(1000, 0, 0))
    assert not torch.equal(order, epoch_order(1000, 0, 1)) and not torch.equal(order, epoch_order(1000, 1, 0))
    assert (order == torch.arange(1000)).sum() < 20


def test_step_seeds_differ_and_suit_torch():
    seeds = {step_seed(s, e, b, r) for s in range(3) for e in range(3) for b in range(3) for r in range(3)}
    assert len(seeds) == 81
    torch.Generator().manual_seed(max(seeds))


# --- pictures ---


def test_a_pictures_augmentation_does_not_depend_on_its_batch(images):
    pictures = torch.arange(100, 112)
    together = augment(images, pictures, EVERYTHING, 32, seed=1, epoch=2)
    assert together.shape == (12, 3, 32, 32) and together.dtype == torch.float32
    backwards = augment(images.flip(0), pictures.flip(0), EVERYTHING, 32, seed=1, epoch=2).flip(0)
    alone = torch.cat(
        [augment(images[i : i + 1], pictures[i : i + 1], EVERYTHING, 32, seed=1, epoch=2) for i in range(12)]
    )
    assert torch.equal(together, backwards) and torch.equal(together, alone)


def test_augmentation_changes_with_epoch_seed_and_picture(images):
    same = images[:1].expand(12, -1, -1, -1)
    first = augment(same, torch.arange(12), EVERYTHING, 32, seed=1, epoch=2)
    assert len(first.flatten(1).unique(dim=0)) == 12
    for seed, epoch in [(1, 3), (2, 2)]:
        other = augment(same, torch.arange(12), EVERYTHING, 32, seed=seed, epoch=epoch)
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_with_everything_off_a_picture_is_only_normalized(images):
    plain = augment(images, torch.arange(12), NOTHING, 36, seed=0, epoch=0)
    assert torch.allclose(plain, normalized(images), atol=1e-4)


def test_flips_mirror_as_many_pictures_as_they_should(images):
    flips = TrainConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=1.0)
    mirrored = augment(images, torch.arange(12), flips, 36, seed=0, epoch=0)
    assert torch.allclose(mirrored, normalized(images).flip(3), atol=1e-4)
    share = (uniform(0, 0, MANY, Purpose.FLIP) < 0.3).double().mean()
    assert abs(share - 0.3) < 0.02


def test_resampling_agrees_with_cropping_and_interpolating(images):
    floats = images.permute(0, 3, 1, 2).float()
    boxes = torch.tensor([[6, 12, 18, 9]], dtype=torch.float64).expand(12, 4) / 36
    for flip in (False, True):
        ours = resample(floats, boxes, torch.full((12,), flip), 27)
        cropped = floats[:, :, 6:24, 12:21]
        reference = F.interpolate(cropped, (27, 27), mode="bilinear", align_corners=False)
        reference = reference.flip(3) if flip else reference
        # at its border a crop that is cut out first repeats its own pixels, ours reads those beyond it
        assert torch.allclose(ours[..., 2:-2, 2:-2], reference[..., 2:-2, 2:-2], atol=1e-2)


def test_bicubic_resampling_agrees_with_cropping_and_interpolating_and_stays_within_the_values(images):
    floats = images.permute(0, 3, 1, 2).float()
    boxes = torch.tensor([[6, 12, 18, 9]], dtype=torch.float64).expand(12, 4) / 36
    ours = resample(floats, boxes, torch.full((12,), False), 27, "bicubic")
    cropped = floats[:, :, 6:24, 12:21]
    reference = F.interpolate(cropped, (27, 27), mode="bilinear", align_corners=False)
    sharper = F.interpolate(cropped, (27, 27), mode="bicubic", align_corners=False)
    assert sharper.max() > 255 and sharper.min() < 0 and ours.max() == 255 and ours.min() == 0
    # bicubic reads two pixels beyond the border of a crop
    inside = (..., slice(4, -4), slice(7, -7))
    assert torch.allclose(ours[inside], sharper.clamp(0, 255)[inside], atol=1e-2)
    assert not torch.allclose(ours[inside], reference[inside], atol=10)


def test_crops_are_brought_to_size_as_the_recipe_says(images):
    smooth, sharp = (
        augment(images, torch.arange(12), TrainConfig(train_interpolation=how), 32, seed=0, epoch=0)
        for how in ("bilinear", "bicubic")
    )
    assert smooth.diff().square().mean() < 0.9 * sharp.diff().square().mean()


def test_crops_are_distributed_as_timms():
    config = TrainConfig(scale=(0.2, 1.0))
    boxes = draw_crops(MANY, config, seed=0, epoch=0)
    top, left, height, width = boxes.unbind(1)
    assert boxes.min() >= 0 and (top + height).max() <= 1 + 1e-9 and (left + width).max() <= 1 + 1e-9
    ratios, areas = width / height, height * width
    assert ratios.min() > 0.7499 and ratios.max() < 1.3334 and areas.min() > 0.1999
    large = torch.zeros(3, 4000, 4000)  # so large that timm's rounding to whole pixels does not count
    theirs = np.array(
        [RandomResizedCropAndInterpolation.get_params(large, config.scale, config.ratio) for _ in range(20_000)]
    )
    ours = boxes.numpy()
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        expected = np.quantile(theirs, quantile, axis=0) / 4000
        assert np.allclose(np.quantile(ours, quantile, axis=0), expected, atol=0.015)


def test_a_crop_that_never_fits_is_the_whole_picture():
    boxes = draw_crops(torch.arange(50), TrainConfig(scale=(0.9, 1.0), ratio=(4.0, 5.0)), seed=0, epoch=0)
    assert torch.equal(boxes, torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64).expand(50, 4))


def test_colours_change_as_in_torchvision(images):
    floats = images.permute(0, 3, 1, 2).float()
    for factors in ([1.3, 1.0, 1.0], [1.0, 0.6, 1.0], [1.0, 1.0, 1.4], [0.7, 1.2, 0.5]):
        reference = TF.adjust_brightness(floats / 255, factors[0])
        reference = TF.adjust_saturation(TF.adjust_contrast(reference, factors[1]), factors[2])
        ours = jitter_colors(floats, torch.tensor([factors]).expand(12, 3))
        assert torch.allclose(ours / 255, reference, atol=2e-3)


def test_erasing_puts_noise_into_a_box_of_some_pictures():
    grey = torch.full((400, 32, 32, 3), 100, dtype=torch.uint8)
    config = TrainConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, reprob=0.4)
    plain = augment(grey, torch.arange(400), NOTHING, 32, seed=0, epoch=0)
    erased = augment(grey, torch.arange(400), config, 32, seed=0, epoch=0)
    changed = (erased - plain).abs().amax(1) > 1e-5
    hit = changed.flatten(1).any(1)
    assert abs(hit.double().mean() - 0.4) < 0.08
    areas = changed[hit].double().mean((1, 2))
    assert areas.min() > 0.005 and areas.max() < 0.4 and abs(areas.mean() - 0.17) < 0.04
    for mask in changed[hit]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert rows * columns == mask.sum()  # one full box
    noise = erased.permute(0, 2, 3, 1)[changed]
    assert noise.mean().abs() < 0.03 and (noise.std() - 1).abs() < 0.03


def test_evaluation_takes_the_centre(images):
    assert torch.allclose(center_crop(images, 32), normalized(images)[:, :, 2:34, 2:34], atol=1e-5)
    assert torch.allclose(center_crop(images, 36), normalized(images), atol=1e-5)


# --- targets and mixing ---


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_give_the_smoothed_cross_entropy(smoothing):
    labels, logits = torch.tensor([0, 2, 1, 4]), torch.randn(4, 5)
    targets = soft_targets(labels, 5, smoothing)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.allclose(F.cross_entropy(logits, targets), expected, atol=1e-6)


@pytest.mark.parametrize("size", [7, 8])
def test_mixed_targets_sum_to_one_and_are_timms(size):
    labels = torch.arange(size) % 5
    mixed = Mixing(0.3, None).targets(soft_targets(labels, 5, 0.1))
    assert torch.allclose(mixed.sum(1), torch.ones(size))
    assert torch.allclose(mixed, mixup_target(labels, 5, 0.3, 0.1), atol=1e-6)


def test_mixup_and_cutmix_mix_a_batch_with_its_reverse():
    images = torch.randn(5, 3, 8, 8)
    blended = Mixing(0.25, None).images(images)
    assert torch.allclose(blended[0], 0.25 * images[0] + 0.75 * images[4], atol=1e-6)
    cut = Mixing(0.5, (2, 6, 1, 8)).images(images)
    assert torch.equal(cut[1, :, 2:6, 1:8], images[3, :, 2:6, 1:8])
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[2:6, 1:8] = False
    assert torch.equal(cut[:, :, outside], images[:, :, outside])


def test_mixing_is_drawn_by_seed_epoch_and_batch():
    config = TrainConfig(mixup=1.0, cutmix=1.0)
    draws = [draw_mixing(config, 32, seed=0, epoch=0, batch=batch) for batch in range(400)]
    assert draws == [draw_mixing(config, 32, seed=0, epoch=0, batch=batch) for batch in range(400)]
    assert draws[:50] != [draw_mixing(config, 32, seed=0, epoch=1, batch=batch) for batch in range(50)]
    assert draws[:50] != [draw_mixing(config, 32, seed=1, epoch=0, batch=batch) for batch in range(50)]
    cut = [draw for draw in draws if draw.box is not None]
    assert 150 < len(cut) < 250
    for draw in cut:
        top, bottom, left, right = draw.box
        assert 0 <= top <= bottom <= 32 and 0 <= left <= right <= 32
        assert draw.kept == pytest.approx(1 - (bottom - top) * (right - left) / 1024)
    blended = np.array([draw.kept for draw in draws if draw.box is None])  # Beta(1, 1) is uniform
    assert np.allclose(np.quantile(blended, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.1)


def test_mixing_is_what_is_switched_on():
    def draw(**options):
        return [draw_mixing(TrainConfig(**options), 32, seed=0, epoch=0, batch=batch) for batch in range(20)]

    assert draw() == [None] * 20
    assert all(drawn.box is None for drawn in draw(mixup=0.2))
    assert all(drawn.box is not None for drawn in draw(cutmix=1.0))


@pytest.mark.parametrize("size", [4, 9, 10, 16])
@pytest.mark.parametrize("processes", [1, 2])
def test_shares_of_a_batch_are_disjoint_and_mix_as_the_whole(size, processes):
    batch = torch.randperm(100)[:size]
    images = torch.randn(100, 3, 4, 4)
    whole = dict(zip(batch.tolist(), Mixing(0.3, None).images(images[batch]), strict=True))
    shares = [Group(rank, processes, torch.device("cpu")).share(batch) for rank in range(processes)]
    assert sorted(torch.cat(shares).tolist()) == sorted(batch.tolist())
    assert max(map(len, shares)) - min(map(len, shares)) <= 3  # a pair, and the one in the middle
    for share in shares:
        for picture, mixed in zip(share.tolist(), Mixing(0.3, None).images(images[share]), strict=True):
            assert torch.equal(mixed, whole[picture])
