"""Train, test, report and export an image classifier from a sealed dataset: `python -m trainer --help`."""

import os
from pathlib import Path

# TensorFlow reads this when it is imported. Without an NVIDIA driver its search for one ends in alarming lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")
