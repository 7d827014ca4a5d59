"""One thread for each worker and each program that a test starts: pytest-xdist fills the cores."""

import os

# No test meets a developer's own weights: those that want the real ones ask for REAL_BODYPIX.
os.environ.setdefault("REAL_BODYPIX", os.environ.get("DSAREID_BODYPIX", ""))  # a worker has it already
os.environ["DSAREID_BODYPIX"] = "/no/weights/in/tests"

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import torch  # noqa: E402

torch.set_num_threads(1)
