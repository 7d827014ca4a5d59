"""Predict times of the CUDA kernels from the data sheets of common GPUs: measured by nobody.

    python benchmarks/roofline.py

For each kernel at its typical size, a batch of 64 (dsa_ext/selftest/operations, where the formulas stand):
the larger of two times. One is for the bytes that it must move, at the bandwidth in the data sheet, which no
copy quite reaches. The other is for the instructions that its warps execute, where tests/simt counts them, at
the four that a multiprocessor issues in a cycle, which no kernel quite reaches either. Launches, a few
microseconds each, are not counted; where inputs and outputs fit in a card's L2 cache a kernel may move less.
For measured times on a GPU: `python -m dsa_ext.selftest` and `benchmarks/kernels.py`.
"""

from typing import NamedTuple

from result import Result, parser

from dsa_ext.selftest.operations import OPERATIONS


class Card(NamedTuple):
    """From the makers' data sheets."""

    bandwidth: int  # GB/s, 10^9 bytes
    multiprocessors: int
    clock: float  # GHz, boost

    @property
    def issued(self) -> float:
        """Warp instructions a second, at most."""
        return 4 * self.multiprocessors * self.clock * 1e9


CARDS = {
    "H200": Card(4800, 132, 1.98),
    "H100 SXM": Card(3350, 132, 1.98),
    "H100 PCIe": Card(2000, 114, 1.755),
    "A100 80 GB SXM": Card(2039, 108, 1.41),
    "L40S": Card(864, 142, 2.52),
    "RTX 4090": Card(1008, 128, 2.52),
    "RTX 3090": Card(936, 82, 1.695),
    "T4": Card(320, 40, 1.59),
}

INSTRUCTIONS = {
    "warp, float32 out": 6.57e6,
    "warp, float16 out": 6.30e6,
    "warp, uint8 out": 5.89e6,
    "warp gradient, float32": 10.1e6,
    "assemble_batch, 128x64 to 256x128, float32": 19.2e6,
    "merge front_back": 3.97e6,
    "merge front_back, residual + ReLU": 4.46e6,
    "merge front_back, gradient": 2.85e6,
    "merge front_back, residual + ReLU, gradient": 4.15e6,
    "count_ranks, float32, waits for the host": 3.48e6,
}
"""Of a batch of 64, on code for sm_90, as `make kernels` prints them; tests/simt/test_simt.py compares."""


def predict(batch: int = 64) -> tuple[dict[str, int], dict[str, dict[str, float]]]:
    """The bytes of each kernel, and for each card the seconds that they or the instructions take."""
    moved = {row.name: row.bytes for operation in OPERATIONS for row in operation.typical(batch)}
    return moved, {
        name: {
            kernel: max(
                count / (card.bandwidth * 1e9),
                INSTRUCTIONS.get(kernel, 0) * batch / 64 / card.issued,
            )
            for kernel, count in moved.items()
        }
        for name, card in CARDS.items()
    }


if __name__ == "__main__":
    with Result(parser(__doc__).parse_args()) as result:
        moved, seconds = predict()
        result.note("PREDICTED from data sheets, not measured.")
        megabytes = {name: [count / 1e6] for name, count in moved.items()}
        result.add("What must move", "a batch of 64", megabytes, unit="MB")
        for card, found in seconds.items():
            times = {name: [value] for name, value in found.items()}
            speed = f"{CARDS[card].bandwidth:,} GB/s, {CARDS[card].issued / 1e9:,.0f} G instructions/s"
            result.add("Predicted times", f"{card}, {speed}", times, unit="us")
