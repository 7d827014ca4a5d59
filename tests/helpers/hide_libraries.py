"""Importing this hides the compiled libraries, as where no compiler was there; for subprocesses of tests.

python -c "import hide_libraries; ..."      python -m pytest -p hide_libraries ...
"""

import importlib.abc
import sys

COMPILED = ("dsa_ext._C", "dsa_ext._C_cuda", "dsareid.ground._core")


class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in COMPILED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Hide())
