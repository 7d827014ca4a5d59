"""What can be said of csrc/ by reading it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"


def test_sources_know_nothing_of_torch_or_python():
    """Outside torch/ and core/, csrc/ is plain C++ and CUDA."""
    for path in (path for end in ("h", "cpp", "cu", "cuh") for path in CSRC.glob(f"*.{end}")):
        includes = re.findall(r'#include [<"]([^>"]+)', path.read_text())
        assert not [name for name in includes if "torch" in name or "Python" in name], path


def test_every_operation_is_in_the_library():
    """CMakeLists.txt names the sources and the public headers; none of csrc/ is forgotten."""
    text = (ROOT / "CMakeLists.txt").read_text()
    sources = [path.name for pattern in ("*.cpp", "*.cu") for path in (ROOT / "csrc").glob(pattern)]
    public = {name.replace(".cpp", ".h") for name in sources if name.endswith(".cpp")}
    for _ in range(3):  # and what those include
        for name in list(public):
            public |= set(re.findall(r'#include "(.+)"', (ROOT / "csrc" / name).read_text()))
    assert {"warp.h", "number.h", "parts.h"} <= public
    assert not [name for name in [*sources, *public] if f"  csrc/{name}\n" not in text]
