"""Turn folders of microscope images into sealed, sharded TFRecord datasets: `python -m data_pipeline --help`."""

__version__ = "0.1.0"
