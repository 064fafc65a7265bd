"""What `auto` means on the devices that are there.

resolve_precision("auto")  # "bfloat16" where they have it, else "float32"
augments_in_step("auto")  # True on GPUs
"""

from pathlib import Path

import tensorflow as tf

from trainer.config import AUTO, BFLOAT16, DEVICE, FLOAT32

BFLOAT16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
BFLOAT16_GPU_CAPABILITY = (8, 0)


def resolve_precision(wanted: str) -> str:
    """`wanted`, but bfloat16 or float32 for `auto`."""
    return wanted if wanted != AUTO else (BFLOAT16 if _has_bfloat16() else FLOAT32)


def augments_in_step(wanted: str) -> bool:
    """For `auto`, on GPUs: there it takes little of the step, and CPUs have enough to decode."""
    return wanted == DEVICE or (wanted == AUTO and bool(_gpus()))


def _has_bfloat16() -> bool:
    gpus = _gpus()
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(detail.get("compute_capability", (0, 0)) >= BFLOAT16_GPU_CAPABILITY for detail in details)
    try:
        return not BFLOAT16_CPU_FLAGS.isdisjoint(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False


def _gpus() -> list[tf.config.PhysicalDevice]:
    return tf.config.list_physical_devices("GPU")  # type: ignore[no-any-return]
