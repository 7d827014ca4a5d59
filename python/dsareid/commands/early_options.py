"""The options that are read before all others, as the defaults of those depend on them."""

import argparse

from dsareid.engine.presets import PRESETS, PresetName


def peek(arguments: list[str]) -> argparse.Namespace:
    """The options that decide about the defaults of all others: preset, resume and out."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default="paper")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", nargs="?")
    return parser.parse_known_args(arguments)[0]


def known_preset(name: str) -> PresetName:
    """The preset of this name, for defaults; of another name the paper's, until tyro refuses it."""
    return next((known for known in PRESETS if known == name), "paper")
