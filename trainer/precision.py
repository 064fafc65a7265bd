"""In which number format layers compute.

resolve_precision("auto")  # "bfloat16" where the hardware has it, else "float32"
"""

from pathlib import Path

import tensorflow as tf

BFLOAT16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
BFLOAT16_GPU_CAPABILITY = (8, 0)


def resolve_precision(wanted: str) -> str:
    """`wanted`, with `auto` decided by the devices that are there."""
    return wanted if wanted != "auto" else ("bfloat16" if _has_bfloat16() else "float32")


def _has_bfloat16() -> bool:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(detail.get("compute_capability", (0, 0)) >= BFLOAT16_GPU_CAPABILITY for detail in details)
    try:
        return not BFLOAT16_CPU_FLAGS.isdisjoint(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
