"""What the memory bandwidth of common GPUs allows: PREDICTED times, measured by nobody.

    python benchmarks/roofline.py [--json]

For each kernel at its typical size (dsa_ext/selftest/operations, where the formulas stand): the bytes it must
move, and how long a card needs for them at the bandwidth in its data sheet, which no copy quite
reaches. Launches, a few microseconds each, are not counted; where inputs and outputs fit in a
card's L2 cache a kernel may be faster. For measured times on a GPU:
`python -m dsa_ext.selftest` and `python benchmarks/kernels.py`.
"""

import argparse
import json

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


def predict(batch: int = 64) -> dict:
    """The bytes of each kernel, and the seconds they take on each card."""
    moved = {row.name: row.bytes for operation in OPERATIONS for row in operation.typical(batch)}
    return {
        "predicted": True,
        "batch": batch,
        "bandwidth": {card: speed * 10**9 for card, speed in CARDS.items()},
        "bytes": moved,
        "predicted_seconds": {
            card: {name: count / (speed * 1e9) for name, count in moved.items()}
            for card, speed in CARDS.items()
        },
    }


def lines(prediction: dict) -> list[str]:
    wide = max(map(len, prediction["bytes"]))
    title = f"PREDICTED microseconds, batch {prediction['batch']}"

    def row(name, megabytes, cells):
        columns = (f"{cell:>{max(len(card), 7)}s}" for card, cell in zip(CARDS, cells))
        return f"{name:{wide}s} {megabytes:>6s}  " + "  ".join(columns)

    rows = [row(title, "MB", CARDS), row("data sheet, GB/s", "", (str(speed) for speed in CARDS.values()))]
    for name, count in prediction["bytes"].items():
        times = (prediction["predicted_seconds"][card][name] for card in CARDS)
        rows.append(row(name, f"{count / 1e6:.1f}", (f"{time * 1e6:.1f}" for time in times)))
    rows.append("PREDICTED from data sheets, not measured: bytes that must move / memory bandwidth")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    result = predict()
    print(json.dumps(result, indent=1) if arguments.json else "\n".join(lines(result)))
