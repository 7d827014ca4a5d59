"""Files of torch.save that detectron2's DensePose writes, read without detectron2.

A pickle can call whatever it names, so two walls stand before it. First the names in it are read, without
running it, and all but the few that a dump needs are refused. Then torch's restricted unpickler builds plain
objects in place of detectron2's classes.
"""

import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dsareid.densepose.charts import CSE, ChartResult, CompressedChart, QuantizedChart
from dsareid.ground.errors import DSAError, first_line
from dsareid.ground.files import ZIP, check_stored

MODULE = "densepose.structures.chart_result"
CLASSES = {
    f"{MODULE}.DensePoseChartResult": ChartResult,
    f"{MODULE}.DensePoseChartResultWithConfidences": ChartResult,
    f"{MODULE}.DensePoseChartResultQuantized": QuantizedChart,
    f"{MODULE}.DensePoseChartResultCompressed": CompressedChart,
}
_OTHERS = re.compile(r"collections\.OrderedDict|torch\._utils\._rebuild_tensor_v2|torch\.\w+Storage")

LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # the head of torch.save's files before 1.6
# How zipfile, pickletools and torch say that a file ends too early.
_CUT = re.compile(
    "File is not a zip file|unexpected EOF|only \\d+ remain|exhausted before|truncated|not enough data"
)
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, the keys of its storages


def load_dump(path: Path) -> object:
    """The object in a file of torch.save, of either of its two formats.

    Tensors of the newer one are mapped from the file, not read.

    Raises:
        DSAError: it holds anything but lists, dictionaries, numbers, text, tensors and the chart results of
            detectron2, or is damaged.
    """
    import torch  # only these files need it

    try:
        with open(path, "rb") as file:
            zipped = file.read(len(ZIP)) == ZIP
        if zipped:
            _refuse_other_archives(path)
        for name in _names_in_zip(path) if zipped else _names_in_legacy(path):
            if name not in CLASSES and not _OTHERS.fullmatch(name):
                raise DSAError(f"{path}: {_why_refused(name)}")
        with torch.serialization.safe_globals([(kind, name) for name, kind in CLASSES.items()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except DSAError:
        raise
    except Exception as error:  # damaged bytes lead pickle, zipfile and torch to raise whatever it may be
        raise DSAError(f"{path}: not readable as a file of torch.save: {_short(error)}") from error


def _refuse_other_archives(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    kind = ""
    if not any(member.endswith("data.pkl") for member in members):
        numpy = any(member.endswith(".npy") for member in members)
        kind = "an .npz of NumPy" if numpy else "a zip archive, but not of torch.save (unpack it?)"
    elif any("/code/" in member for member in members):
        kind = "a TorchScript model, not the output of a model"
    if kind:
        raise DSAError(
            f"{path}: it is {kind}; expected a dump of detectron2, as apply_net.py writes it (.pkl)"
        )


def _names_in_zip(path: Path) -> Iterator[str]:
    check_stored(path)
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.filename.endswith("data.pkl"):
                yield from _names_in_pickle(archive.read(record))


def _names_in_legacy(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        for _ in range(_LEGACY_PICKLES):
            yield from _names_in_pickle(file)


def _names_in_pickle(pickled) -> Iterator[str]:
    """Every class and function that a pickle names, as module.name; nothing is run."""
    for instruction, argument, _ in pickletools.genops(pickled):
        if instruction.name == "PROTO" and argument != 2:  # later ones have other ways to name things
            raise ValueError(f"a pickle of protocol {argument}, where torch.save writes 2")
        if instruction.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".", 1)


def _why_refused(name: str) -> str:
    if "Embedding" in name:
        return f"it holds {name}, {CSE}"
    if "PredictorOutput" in name:
        return (
            f"it holds {name}, the raw output of the network's heads, which is not resampled to the boxes; "
            "run detectron2's apply_net.py dump, which does that"
        )
    return (
        f"it holds {name}, which a DensePose dump has no use for; the file was not loaded, and nothing in it "
        "was run"
    )


def _short(error: Exception) -> str:
    """What is wrong, in a line. Torch's message about a pickle advises to load it without restrictions."""
    if isinstance(error, pickle.UnpicklingError):
        return "its pickle is damaged, or holds what a dump does not"
    if _CUT.search(str(error)) or isinstance(error, EOFError):
        return "its end is missing; was it written and copied to the end?"
    return first_line(error)
