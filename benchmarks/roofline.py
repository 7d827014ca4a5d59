"""Predict times of the CUDA kernels from the memory bandwidth of common GPUs: measured by nobody.

    python benchmarks/roofline.py

For each kernel at its typical size, a batch of 64 (dsa_ext/selftest/operations, where the formulas stand):
the bytes it must move, and how long a card needs for them at the bandwidth in its data sheet, which no
copy quite reaches. Launches, a few microseconds each, are not counted; where inputs and outputs fit in a
card's L2 cache a kernel may be faster. For measured times on a GPU: `python -m dsa_ext.selftest` and
`benchmarks/kernels.py`.
"""

from result import Result, parser

from dsa_ext.selftest.operations import OPERATIONS

# Memory bandwidth in GB/s (10^9 bytes), from the makers' data sheets.
CARDS = {
    "H200": 4800,
    "H100 SXM": 3350,
    "H100 PCIe": 2000,
    "A100 80 GB SXM": 2039,
    "L40S": 864,
    "RTX 4090": 1008,
    "RTX 3090": 936,
    "T4": 320,
}


def predict(batch: int = 64) -> tuple[dict[str, int], dict[str, dict[str, float]]]:
    """The bytes of each kernel, and for each card the seconds that they take."""
    moved = {row.name: row.bytes for operation in OPERATIONS for row in operation.typical(batch)}
    return moved, {
        card: {name: count / (speed * 1e9) for name, count in moved.items()} for card, speed in CARDS.items()
    }


if __name__ == "__main__":
    with Result(parser(__doc__).parse_args()) as result:
        moved, seconds = predict()
        result.note("PREDICTED from data sheets, not measured.")
        megabytes = {name: [count / 1e6] for name, count in moved.items()}
        result.add("What must move", "a batch of 64", megabytes, unit="MB")
        for card, found in seconds.items():
            times = {name: [value] for name, value in found.items()}
            result.add("Predicted times", f"{card}, {CARDS[card]:,} GB/s", times, unit="us")
