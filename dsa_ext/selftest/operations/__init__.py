"""One file an operation, each with its record; a new file is all that the self-test needs to know."""

import importlib
import pkgutil

from dsa_ext.selftest.operation import Operation

OPERATIONS: tuple[Operation, ...] = tuple(
    importlib.import_module(f"{__name__}.{module.name}").OPERATION
    for module in pkgutil.iter_modules(__path__)
)
"""All of them, by name."""
