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
