"""One file for each operation, with its record. The self-test finds a new file by itself."""

import importlib
import pkgutil

from dsa_ext.selftest.operation import Operation

OPERATIONS: tuple[Operation, ...] = tuple(
    importlib.import_module(f"{__name__}.{module.name}").OPERATION
    for module in pkgutil.iter_modules(__path__)
)
"""All of them, in the order of their names."""
