"""What each extra is for, told by what can be imported once it is installed."""

# From setup.py. `gpu` is gigabytes, so it is only resolved.
EXTRAS = {
    "dev": (
        "cryptography",
        "gcp_storage_emulator",
        "hcl2",
        "kubernetes_validate",
        "pytest",
        "selenium",
        "xdist",
    ),
    "docs": ("furo", "myst_parser", "sphinx", "sphinx_copybutton"),
    "gcp": ("apache_beam.runners.dataflow.dataflow_runner", "google_auth_httplib2"),
    "gpu": (),
    "kubeflow": ("kfp", "kfp.compiler"),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "vertex": ("google.cloud.aiplatform",),
}
ONLY_RESOLVED = ("gpu",)

# Pythons that an extra has nothing for: the site's generator needs a newer one.
NOTHING_ON = {"docs": ("3.10",)}
