"""What measured speeds of input and step say: which side holds training up, and what helps most. Pure.

    verdict = judge(measured, facts)
    print(verdict)      # one sentence, then what to do about it, what helps most first

Every piece of advice comes from a figure of `Measured`: what each image would take after it is put into `expected`, and
nothing is advised that gains less than `WORTH`. How fast training would be is the least of what the step, the input and
the processors allow; on a CPU, input and step share these.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median

from trainer.pace import INPUT_BOUND
from trainer.sizes import as_text

WORTH = 0.03
MEMORY_SHARE = 4  # as `decoded_cache.py` keeps to, which needs TensorFlow
BUSY = 0.3  # of the processors taken by others before anything is measured


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast something is: images a second and milliseconds of CPU time an image, of each slice of time."""

    images_per_s: tuple[float, ...]
    cpu_ms: tuple[float, ...]

    @property
    def speed(self) -> float:
        return median(self.images_per_s)

    @property
    def cost_ms(self) -> float:
        return median(self.cpu_ms)


@dataclass(frozen=True, slots=True)
class Facts:
    """What else counts. Sizes in bytes; `free_*` is what this process may use, `dataset_bytes` the train split's.

    `on_cpu` says that the step runs on the processors that make the input too, `cached` that images are kept decoded
    already, and `fetched` that the dataset came from a bucket to --scratch. `faster_precision` is what --precision=auto
    means here, and with `augmented_on_device` images are augmented in the step.
    """

    cpus: int
    load_before: float
    on_cpu: bool
    records: int
    stored_px: int
    image_px: int
    png_share: float
    dataset_bytes: int
    free_memory_bytes: int
    cache_budget_bytes: int
    free_disk_bytes: int
    cached: bool
    fetched: bool
    precision: str
    faster_precision: str
    augmented_on_device: bool

    @property
    def cache_bytes(self) -> int:
        """What all images take when they are kept decoded."""
        return self.records * self.stored_px**2 * 3

    @property
    def cache_memory_bytes(self) -> int:
        """What they may take of the memory."""
        return min(self.cache_budget_bytes, self.free_memory_bytes // MEMORY_SHARE)

    @property
    def stays_in_memory(self) -> bool:
        """Whether the system can keep the files in memory, once they have been read."""
        return self.dataset_bytes < self.free_memory_bytes


@dataclass(frozen=True)
class Measured:
    """The stages of the input, each with those before it, and the step.

    `input` is the input as the flags ask for it: `whole` or, if images are kept decoded, `kept`. `without` says how
    fast it is without a flag of augmentation, `forms` the CPU time of decoding alone: `stored`, and `small` for JPEG
    files of the training size; both may be empty. `waiting_share` is that of `training`, input and step together.
    """

    read_first: Rate
    read_again: Rate
    decoded: Rate
    whole: Rate
    kept: Rate
    without: Mapping[str, Rate]
    forms: Mapping[str, Rate]
    step: Rate
    training: Rate
    waiting_share: float


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to do, and how many images a second training would take then."""

    text: str
    images_per_s: float

    def __str__(self) -> str:
        return f"{self.text} Training would take about {number(self.images_per_s)} images/s."


@dataclass(frozen=True)
class Verdict:
    """The sentence, what to do, and what else should be known."""

    sentence: str
    remedies: tuple[Remedy, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        steps = [f"  {place}. {remedy}" for place, remedy in enumerate(self.remedies, 1)]
        return "\n".join([self.sentence, *steps, *self.notes])


def judge(measured: Measured, facts: Facts) -> Verdict:
    """Which side holds training up, and what would help."""
    now, cpus = _Input.of(measured, facts), _cpus_had(measured, facts)
    scale = measured.training.speed / expected(measured.step, now, cpus)
    step = measured.step
    remedies = [Remedy(text, expected(step, after, cpus) * scale) for text, after in _ideas(measured, facts)]
    more = _more_processors(measured, now, facts)
    if more:
        text, needed = more
        remedies.append(Remedy(text, expected(step, now.spread(needed / facts.cpus), needed) * scale))
    possible = [replace(one, images_per_s=min(one.images_per_s, step.speed)) for one in remedies]
    worth = [one for one in possible if one.images_per_s >= measured.training.speed * (1 + WORTH)]
    worth.sort(key=lambda one: -one.images_per_s)
    return Verdict(_sentence(measured, now, facts, helped=bool(worth)), tuple(worth), tuple(_notes(measured, facts)))


@dataclass(frozen=True, slots=True)
class _Input:
    """The input as it is, or as it would be: images a second when nothing else runs, and CPU time an image."""

    speed: float
    cost_ms: float

    @classmethod
    def of(cls, measured: Measured, facts: Facts) -> "_Input":
        rate = measured.kept if facts.cached else measured.whole
        return cls(rate.speed, rate.cost_ms).read_at(_disk_speed(measured, facts))

    def read_at(self, disk: float) -> "_Input":
        return _Input(min(self.speed, disk), self.cost_ms)

    def cheaper(self, saved_ms: float) -> "_Input":
        """With less work for each image, of which it does as many more."""
        cost = max(self.cost_ms - saved_ms, self.cost_ms / 100)
        return _Input(self.speed * self.cost_ms / cost, cost)

    def spread(self, factor: float) -> "_Input":
        return _Input(self.speed * factor, self.cost_ms)


def expected(step: Rate, source: _Input, cpus: float) -> float:
    """Images a second that training takes, from what its parts take for themselves."""
    seconds = (source.cost_ms + step.cost_ms) / 1000 / cpus
    return 1 / max(1 / step.speed, 1 / source.speed, seconds)


def _cpus_had(measured: Measured, facts: Facts) -> float:
    """The most that any stage got: others may want the rest, or a container not be allowed it."""
    rates = (measured.decoded, measured.whole, measured.kept, measured.step, measured.training)
    return min(max(rate.speed * rate.cost_ms / 1000 for rate in rates), facts.cpus)


def _disk_speed(measured: Measured, facts: Facts) -> float:
    """What the disk allows epoch after epoch; of what stays in memory, any speed."""
    return float("inf") if facts.stays_in_memory or facts.cached else measured.read_first.speed


def _ideas(measured: Measured, facts: Facts) -> Iterator[tuple[str, _Input]]:
    """What could be done, and the input after it."""
    now = _Input.of(measured, facts)
    if not facts.cached:
        if {"stored", "small"} <= measured.forms.keys():
            stored, small = measured.forms["stored"].cost_ms, measured.forms["small"].cost_ms
            yield _other_form(facts, stored, small), now.cheaper(stored - small)
        if cache := _cache(facts):
            yield cache, _Input(measured.kept.speed, measured.kept.cost_ms)
        if not facts.stays_in_memory:
            fast = _Input(measured.whole.speed, measured.whole.cost_ms)
            yield _other_disk(measured, facts), fast.read_at(measured.read_again.speed)
        if not (facts.on_cpu or facts.augmented_on_device):
            yield _in_step(measured), _Input(measured.decoded.speed, measured.decoded.cost_ms)
    for flag, rate in measured.without.items():
        cost = max(now.cost_ms - rate.cost_ms, 0.0)
        text = f"Leave out {flag}, which takes {cost:.2f} of {now.cost_ms:.2f} ms CPU an image."
        yield text, _Input(rate.speed, rate.cost_ms).read_at(_disk_speed(measured, facts))


def _other_form(facts: Facts, stored_ms: float, small_ms: float) -> str:
    took = f"decoding one takes {stored_ms:.2f} ms CPU, and would take {small_ms:.2f}"
    if facts.stored_px > facts.image_px:
        size = facts.image_px
        return f"Convert again with --image_size={size}: images are stored at {facts.stored_px} px, {took}."
    return (
        f"Store JPEG instead of PNG: {took}. Convert with --encoding=jpeg; PNG images that have {facts.image_px} px "
        "already are stored as they come, so save those as JPEG before."
    )


def _in_step(measured: Measured) -> str:
    return (
        f"Give --augment_on=device: before augmentation the input gives {number(measured.decoded.speed)} images/s. How "
        "much longer the step takes then, the same command with it says."
    )


def _cache(facts: Facts) -> str:
    """How to keep images decoded; empty if there is no room."""
    size, memory = as_text(facts.cache_bytes), as_text(facts.free_memory_bytes)
    if facts.cache_bytes <= facts.cache_memory_bytes:
        return f"Give --cache=auto: all images decoded take {size} of {memory} of memory that is free."
    if facts.cache_bytes <= facts.free_memory_bytes // MEMORY_SHARE:
        room = as_text(facts.cache_bytes + 10**8)
        return f"Give --cache=auto --cache_budget={room.replace(' ', '')}: all images decoded take {size} of {memory}."
    if facts.cache_bytes <= facts.free_disk_bytes:
        disk = as_text(facts.free_disk_bytes)
        return (
            f"Give --cache=decoded: all images decoded take {size}, too much for {memory} of free memory, but "
            f"--scratch has {disk}. Its disk must be fast: what was measured is the cache in memory."
        )
    return ""


def _other_disk(measured: Measured, facts: Facts) -> str:
    fix = "name a faster disk with --scratch" if facts.fetched else "copy the dataset to a fast disk of this machine"
    return (
        f"Read from another disk: this one gives {number(measured.read_first.speed)} images/s, and "
        f"{as_text(facts.dataset_bytes)} don't stay in {as_text(facts.free_memory_bytes)} of free memory. To do so, "
        f"{fix}, or give the machine more memory."
    )


def _more_processors(measured: Measured, now: _Input, facts: Facts) -> tuple[str, float] | None:
    """How many processors would feed the device, if these don't. Where they are the device, more help the step too."""
    needed = (now.cost_ms + measured.step.cost_ms) / 1000 * measured.step.speed
    if facts.on_cpu or needed <= facts.cpus:
        return None
    text = (
        f"Have {needed:.1f} CPUs: a device that takes {number(measured.step.speed)} images/s needs as many at "
        f"{now.cost_ms + measured.step.cost_ms:.2f} ms an image, and there are {facts.cpus}."
    )
    return text, needed


def _sentence(measured: Measured, now: _Input, facts: Facts, *, helped: bool) -> str:
    step, training = measured.step.speed, measured.training.speed
    speeds = f"the input gives {number(now.speed)} images/s, a step takes {number(step)}"
    waiting = max(measured.waiting_share, 1 - now.speed / step)
    ending = " Do this:" if helped else f" None of what was measured would gain {WORTH:.0%} or more."
    if waiting > INPUT_BOUND:
        return f"The input is the bottleneck: {speeds} and waits for data {waiting:.0%} of the time.{ending}"
    if not helped and training >= step * (1 - 2 * WORTH):
        return f"The step is the bottleneck: {speeds}. Training waits for the step; nothing to gain at the input."
    share = now.cost_ms / (now.cost_ms + measured.step.cost_ms)
    shared = f"; of the CPUs that both use, the input takes {share:.0%}" if facts.on_cpu else ""
    return f"The step is the bottleneck: {speeds}, together they reach {number(training)}{shared}.{ending}"


def _notes(measured: Measured, facts: Facts) -> Iterator[str]:
    first, now = measured.read_first.speed, _Input.of(measured, facts).speed
    if facts.stays_in_memory and first < min(now, measured.step.speed):
        yield (
            f"Only the first epoch reads from the disk, at {number(first)} images/s: then "
            f"{as_text(facts.dataset_bytes)} stay in memory."
        )
    if facts.cached and measured.whole.speed < measured.step.speed:
        yield f"Only the first epoch decodes images, at {number(measured.whole.speed)} images/s: then they are kept."
    if facts.precision != facts.faster_precision:
        yield (
            f"The step was measured in {facts.precision}, and this machine computes in {facts.faster_precision} too: "
            "give --precision=auto to see what that gains."
        )
    if facts.load_before > BUSY * facts.cpus:
        yield (
            f"Other processes wanted {facts.load_before:.1f} of {facts.cpus} CPUs when this began (load average): end "
            "them for training at full speed, and measure again."
        )


def number(value: float) -> str:
    """With two digits at the least."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
