"""Prints what tests/simt counts of each kernel on a typical batch: memory traffic, and instructions.

python tests/simt/report.py [IMAGES]     (make kernels)

baseline.json has the instructions of the commit that counted them first, for 64 images.
"""

import json
import subprocess
import sys

import harness

SECTOR = 32
H200 = 4 * 132 * 1.98e9
"""Warp instructions that it issues in a second at most."""
BASELINE = harness.HERE / "baseline.json"


def counts(images: int = 64, mode: str = "count") -> list[dict]:
    """The lines of counts.cpp for a batch of so many images: memory traffic, or with "ptx" instructions."""
    program = harness.program("counts", mode)
    done = subprocess.run([program, str(images)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def print_counts(rows: list[dict]) -> None:
    for row in rows:
        print(
            f"\n{row['what']}: {row['kernel']}, {row['blocks']} blocks, "
            f"{row['shared_bytes'] / 1024:.1f} KiB of shared memory each"
        )
        print("    buffer              MB  x least   MB again  sectors a request  full sectors  16 B wide")
        for b in row["buffers"]:
            again = (b["sectors"] - b["distinct"]) * SECTOR
            print(
                f"    {b['kind']:5s} {b['name']:12s} {b['distinct'] * SECTOR / 1e6:6.2f} "
                f"{b['distinct'] / b['least']:7.3f} {again / 1e6:10.2f} "
                f"{b['sectors'] / b['requests']:11.1f} of {b['bytes'] / b['requests'] / SECTOR:4.1f} "
                f"{b['full_sectors'] / b['sectors']:13.1%} {b['wide'] / b['requests']:11.0%}"
            )
        s = row["shared"]
        if s["requests"]:
            conflicts = s["wavefronts"] / s["least_wavefronts"]
            print(f"    shared memory: {conflicts:.2f} wavefronts for 1 without bank conflicts", end="")
            if s["atomics"]:
                print(
                    f"; atomics: {s['atomic_lanes'] / s['atomics']:.1f} lanes a request, at most "
                    f"{s['atomic_serial'] / s['atomics']:.2f} of them on one address",
                    end="",
                )
            print()


def print_instructions(rows: list[dict], images: int) -> None:
    before = json.loads(BASELINE.read_text()) if images == 64 else {}
    print("\nInstructions that the warps execute, counted on nvcc's code for sm_90 (the rule is in ptx.py):")
    print(f"    {'':34s} {'million':>8s} {'at first':>9s} {'of it':>6s}   an H200 issues them in, at best")
    for row in rows:
        first = before.get(row["what"])
        then = f"{first / 1e6:9.2f} {row['instructions'] / first:6.2f}" if first else f"{'':16s}"
        print(
            f"    {row['what']:34s} {row['instructions'] / 1e6:8.2f} {then} "
            f"{row['instructions'] / H200 * 1e6:8.1f} us"
        )


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    print(f"Counted by tests/simt, not measured on a GPU; {images} images, 132 multiprocessors.")
    print_counts(counts(images))
    if reason := harness.why_no_nvcc():
        print(f"\nInstructions were not counted: {reason}")
    else:
        print_instructions(counts(images, "ptx"), images)


if __name__ == "__main__":
    main()
