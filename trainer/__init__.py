"""Train, test, report and export an image classifier from a sealed dataset: `python -m trainer --help`."""

import os
from pathlib import Path

# TensorFlow reads this when it is imported. Without an NVIDIA driver its search for one ends in alarming lines.
# On CPUs without AVX-512 TensorFlow leaves oneDNN out by default, and steps take half as long again.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")
