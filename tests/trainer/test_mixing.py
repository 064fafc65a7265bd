"""mixup and CutMix: the right pixels, the right shares of labels, and no dependence on the batch."""

import numpy as np
import pytest
from scipy.stats import beta, kstest

from trainer.augment_config import Mixing
from trainer.mixing import draw_mix, mixed

SIZE, BATCH = 40, 8
BOTH = Mixing(mixup=0.4, cutmix=1.0)


def images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((BATCH, SIZE, SIZE, 3), dtype=np.float32)


@pytest.mark.parametrize("how", [Mixing(mixup=0.4), Mixing(cutmix=1.0), BOTH])
def test_pixels_and_labels_are_shared_as_in_the_papers(how: Mixing) -> None:
    mix = draw_mix(how, seed=0, epoch=2, indices=np.arange(BATCH), records=100, size_px=SIZE)
    own, others = images(1), images(2)
    ours = mixed(own, others, mix.packed()).numpy()
    for i in range(BATCH):
        left, top, right, bottom = mix.boxes[i].astype(int)
        area = (right - left) * (bottom - top)
        if how.cutmix and (not how.mixup or mix.blend[i] == 1):
            expected = own[i].copy()
            expected[top:bottom, left:right] = others[i, top:bottom, left:right]
            assert mix.share[i] == pytest.approx(1 - area / SIZE**2)
        else:
            assert area == 0
            expected = mix.share[i] * own[i] + (1 - mix.share[i]) * others[i]
        assert np.allclose(ours[i], expected, atol=1e-6)


def test_shares_of_mixup_follow_the_beta_distribution() -> None:
    mix = draw_mix(Mixing(mixup=0.4), seed=3, epoch=0, indices=np.arange(20_000), records=20_000, size_px=SIZE)
    assert kstest(mix.share.astype(np.float64), beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_boxes_of_cutmix_are_as_large_as_the_beta_distribution_says_before_they_are_clipped() -> None:
    mix = draw_mix(Mixing(cutmix=1.0), seed=3, epoch=0, indices=np.arange(20_000), records=20_000, size_px=10_000)
    sides = mix.boxes[:, 2:] - mix.boxes[:, :2]
    inside = (mix.boxes[:, :2] > 0).all(axis=1) & (mix.boxes[:, 2:] < 10_000).all(axis=1)
    assert (np.abs(sides[inside, 0] - sides[inside, 1]) <= 1).all()
    # A box of side s is inside with probability (1 − s)², and s² is uniform: the density of s inside is 12 s (1 − s)².
    below = lambda s: 6 * s**2 - 8 * s**3 + 3 * s**4  # noqa: E731
    assert kstest(sides[inside, 0] / 10_000, below).pvalue > 1e-3


def test_partners_are_any_record_and_each_equally_often() -> None:
    partners = draw_mix(BOTH, seed=0, epoch=0, indices=np.arange(50_000), records=10, size_px=SIZE).partners
    assert np.abs(np.bincount(partners, minlength=10) / 50_000 - 0.1).max() < 0.01


def test_half_of_the_images_get_each_of_the_two() -> None:
    mix = draw_mix(BOTH, seed=0, epoch=0, indices=np.arange(20_000), records=10, size_px=SIZE)
    assert abs((mix.blend == 1).mean() - 0.5) < 0.015


def test_a_record_is_mixed_alike_in_any_batch_and_otherwise_in_the_next_epoch() -> None:
    def of(indices: np.ndarray, epoch: int = 1) -> np.ndarray:
        mix = draw_mix(BOTH, seed=0, epoch=epoch, indices=indices, records=100, size_px=SIZE)
        return np.concatenate([mix.partners[:, None], mix.packed()], axis=1)

    whole, some = of(np.arange(BATCH)), np.array([6, 2, 5])
    assert (of(some) == whole[some]).all()
    assert (of(np.arange(BATCH), epoch=2)[:, 0] != whole[:, 0]).any()
