"""What measured speeds are taken to mean, and what is advised because of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.advice import WORTH, Facts, Measured, Rate, judge

GB = 10**9
# A device that takes 2,000 images/s, of which two CPUs give 500: 4 ms of CPU time each, 1 of them for decoding.
MEASURED = Measured(
    read_first=Rate((5000.0,), (0.1,)),
    read_again=Rate((9000.0,), (0.1,)),
    decoded=Rate((1800.0,), (1.1,)),
    whole=Rate((500.0,), (4.0,)),
    kept=Rate((660.0,), (3.0,)),
    without={},
    forms={},
    step=Rate((2000.0,), (0.1,)),
    training=Rate((480.0,), (4.1,)),
    waiting_share=0.75,
)
FACTS = Facts(
    cpus=2,
    load_before=0.0,
    on_cpu=False,
    records=1000,
    stored_px=256,
    image_px=256,
    png_share=0.0,
    dataset_bytes=GB,
    free_memory_bytes=8 * GB,
    cache_budget_bytes=4 * GB,
    free_disk_bytes=100 * GB,
    cached=False,
    fetched=False,
    precision="bfloat16",
    faster_precision="bfloat16",
    augmented_on_device=True,
)


def flat(speed: float, cost_ms: float) -> Rate:
    return Rate((speed,), (cost_ms,))


def test_where_the_step_is_slow_there_is_nothing_to_do() -> None:
    slow = replace(MEASURED, step=flat(20, 95.0), training=flat(19.8, 99.0), waiting_share=0.0)
    verdict = judge(slow, replace(FACTS, on_cpu=True))
    assert str(verdict).startswith("The step is the bottleneck: the input gives 500 images/s, a step takes 20.")
    assert "nothing to gain" in verdict.sentence
    assert not verdict.remedies
    assert not verdict.notes


def test_a_device_that_waits_is_told_what_helps_most_first() -> None:
    verdict = judge(MEASURED, FACTS)
    assert verdict.sentence.startswith("The input is the bottleneck: the input gives 500 images/s, a step takes 2,000 ")
    assert "75% of the time" in verdict.sentence
    processors, cache = verdict.remedies
    assert processors.text.startswith("Have 8.2 CPUs")  # 2,000 images/s at 4 + 0.1 ms
    assert processors.images_per_s == pytest.approx(480 / 488 * 2000, rel=0.02)
    assert cache.text.startswith("Give --cache=auto")
    assert cache.images_per_s == pytest.approx(480 / 488 * 2000 / 3.1, rel=0.02)


def test_processors_that_are_the_device_are_not_called_too_few_to_feed_it() -> None:
    verdict = judge(MEASURED, replace(FACTS, on_cpu=True))
    assert not any("CPUs:" in remedy.text for remedy in verdict.remedies)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "--cache=auto: all images decoded take 197 MB of 8 GB"),
        ({"cache_budget_bytes": 10**8}, "--cache=auto --cache_budget=297MB"),
        (
            {"free_memory_bytes": 5 * 10**8, "dataset_bytes": 1},
            "--cache=decoded: all images decoded take 197 MB, too m",
        ),
    ],
)
def test_a_cache_is_advised_where_there_is_room(changes: dict[str, int], says: str) -> None:
    verdict = judge(MEASURED, replace(FACTS, **changes))
    assert [remedy for remedy in verdict.remedies if says in remedy.text]


def test_no_cache_is_advised_without_room_or_when_there_is_one() -> None:
    full = replace(FACTS, free_memory_bytes=5 * 10**8, free_disk_bytes=10**8, dataset_bytes=1)
    for facts in (full, replace(FACTS, cached=True)):
        assert "--cache" not in str(judge(MEASURED, facts))


def test_with_a_cache_the_verdict_is_about_that() -> None:
    verdict = judge(MEASURED, replace(FACTS, cached=True))
    assert "the input gives 660 images/s" in verdict.sentence
    assert verdict.notes == ("Only the first epoch decodes images, at 500 images/s: then they are kept.",)


def test_larger_images_are_to_be_converted_again() -> None:
    measured = replace(MEASURED, forms={"stored": flat(400, 3.0), "small": flat(4000, 0.5)})
    best = judge(measured, replace(FACTS, stored_px=768)).remedies[1]
    assert best.text.startswith("Convert again with --image_size=256: images are stored at 768 px")
    assert "takes 3.00 ms CPU, and would take 0.50" in best.text
    assert best.images_per_s == pytest.approx(480 / 488 * 2000 / 1.6, rel=0.02)  # 4 - 2.5 + 0.1 ms


def test_processors_that_others_took_are_not_counted_on() -> None:
    """Of two, each stage got one: then input and step share that, though neither is slower than the other alone."""
    half = replace(MEASURED, decoded=flat(900, 1.1), whole=flat(250, 4.0), kept=flat(330, 3.0))
    half = replace(half, step=flat(250, 4.0), training=flat(120, 8.0), without={"--mixup": flat(500, 2.0)})
    (remedy,) = judge(half, replace(FACTS, on_cpu=True, cached=True)).remedies
    assert "--mixup" in remedy.text
    assert remedy.images_per_s == pytest.approx(120 / (1 / 7) * (1 / 6), rel=0.01)  # 3 + 4 ms, then 2 + 4


def test_png_is_said_to_be_slow_only_if_it_was_seen_to_be() -> None:
    facts = replace(FACTS, png_share=1.0)
    slow = replace(MEASURED, forms={"stored": flat(400, 3.0), "small": flat(4000, 0.5)})
    assert "JPEG instead of PNG" in str(judge(slow, facts))
    fast = replace(MEASURED, forms={"stored": flat(4000, 0.5), "small": flat(4000, 0.5)})
    assert "PNG" not in str(judge(fast, facts))


def test_a_change_that_costs_much_is_named_with_its_cost() -> None:
    without = {"--blur": flat(1500, 1.2), "--cutout": flat(505, 3.99)}
    text = str(judge(replace(MEASURED, without=without), FACTS))
    assert "Leave out --blur, which takes 2.80 of 4.00 ms CPU an image." in text
    assert "--cutout" not in text


def test_a_gpu_is_to_augment_where_that_holds_the_input_up() -> None:
    text = str(judge(MEASURED, replace(FACTS, augmented_on_device=False)))
    assert "Give --augment_on=device: before augmentation the input gives 1,800 images/s." in text
    assert "--augment_on" not in str(judge(MEASURED, replace(FACTS, augmented_on_device=False, on_cpu=True)))
    assert "--augment_on" not in str(judge(MEASURED, FACTS))


@pytest.mark.parametrize(("fetched", "fix"), [(True, "--scratch"), (False, "copy the dataset to a fast disk")])
def test_a_slow_disk_is_told_if_memory_does_not_keep_the_data(fetched: bool, fix: str) -> None:
    slow = replace(MEASURED, read_first=flat(50, 0.1), whole=flat(1900, 1.0), kept=flat(1900, 1.0))
    slow = replace(slow, training=flat(1800, 1.1), waiting_share=0.05)
    large = replace(FACTS, dataset_bytes=100 * GB, fetched=fetched, records=10**7)
    verdict = judge(slow, large)
    assert "The input is the bottleneck: the input gives 50 images/s" in verdict.sentence
    assert "98% of the time" in verdict.sentence
    assert verdict.remedies[0].text.startswith("Read from another disk: this one gives 50 images/s")
    assert fix in verdict.remedies[0].text
    kept = judge(slow, FACTS)
    assert "bottleneck: the input gives 1,900" in kept.sentence
    assert kept.notes[0].startswith("Only the first epoch reads from the disk, at 50 images/s")


def test_a_busy_machine_and_a_slow_precision_are_told() -> None:
    busy = judge(MEASURED, replace(FACTS, load_before=1.5, precision="float32"))
    assert "--precision=auto" in busy.notes[0]
    assert "wanted 1.5 of 2 CPUs" in busy.notes[1]


speeds = st.floats(0.01, 1e6)
rates = st.builds(flat, speeds, st.floats(0.001, 1e4))


@given(
    st.builds(
        Measured,
        **dict.fromkeys(("read_first", "read_again", "decoded", "whole", "kept", "step", "training"), rates),
        without=st.dictionaries(st.sampled_from(["--blur", "--stain"]), rates),
        forms=st.sampled_from([{}, {"stored": flat(100, 9.0), "small": flat(900, 1.0)}]),
        waiting_share=st.floats(0, 1),
    ),
    st.builds(
        replace,
        st.just(FACTS),
        cpus=st.integers(1, 128),
        on_cpu=st.booleans(),
        cached=st.booleans(),
        stored_px=st.sampled_from([256, 512]),
        free_memory_bytes=st.integers(0, 10**12),
    ),
)
def test_whatever_is_measured_all_advice_is_worth_it_and_the_best_comes_first(measured: Measured, facts: Facts) -> None:
    verdict = judge(measured, facts)
    gains = [remedy.images_per_s / measured.training.speed for remedy in verdict.remedies]
    assert gains == sorted(gains, reverse=True)
    assert all(gain >= 1 + WORTH - 1e-9 for gain in gains)
    assert all(remedy.images_per_s <= measured.step.speed for remedy in verdict.remedies)
    assert ("Do this:" in verdict.sentence) == bool(gains)
