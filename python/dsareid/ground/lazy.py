"""Lazy packages (PEP 562): a public name is imported on first use, so that importing the package is cheap."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The __getattr__ and __dir__ of a package.

    Args:
        package: its __name__.
        homes: for each module, as ".module" relative to the package, the public names that it has.
    """
    module_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(module_of[name], package), name)

    def names() -> list[str]:
        return sorted([*module_of, *(name for name in vars(sys.modules[package]) if name.startswith("__"))])

    return get, names
