"""One thread for each worker and each program that a test starts: pytest-xdist fills the cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import torch  # noqa: E402

torch.set_num_threads(1)
