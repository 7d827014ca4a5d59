"""Options that are read first, because the defaults of the others depend on them."""

import argparse

from dsareid.engine.presets import PRESETS, PresetName


def peek(arguments: list[str]) -> argparse.Namespace:
    """The options that set the defaults of the others: preset, resume, out and trunk."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default="paper")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--network.trunk", nargs="?", dest="trunk")
    return parser.parse_known_args(arguments)[0]


def known_preset(name: str) -> PresetName:
    """The preset of this name; for a wrong name the paper's, until tyro refuses it."""
    return next((known for known in PRESETS if known == name), "paper")
