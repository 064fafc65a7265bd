"""Train, test, report and export an image classifier from a sealed dataset: `python -m trainer --help`."""
