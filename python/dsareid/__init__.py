"""DSA-reID: densely semantically aligned person re-identification.

What follows loads on first use, so that `import dsareid` alone needs no torch:

    texture(image, iuv)           the part textures of a person and its DensePose map
    train(TrainConfig(...))       train a network
    evaluate(run)                 mAP and CMC of a trained network
    rank(query, gallery, ...)     mAP and CMC of any features
    export(run, file)             a trained network as one file
    embed(run_or_file)(images)    features of images
    extract(model, images, out)   features of a folder of images, however many
    Guide                         the guide beside a backbone of your own
    DSAError                      what is raised where a file or an argument is wrong
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsareid.densepose.textures import texture as texture
    from dsareid.engine import TrainConfig as TrainConfig
    from dsareid.engine import train as train
    from dsareid.evaluation import evaluate as evaluate
    from dsareid.evaluation import rank as rank
    from dsareid.ground.errors import DSAError as DSAError
    from dsareid.inference.embedder import embed as embed
    from dsareid.inference.export import export as export
    from dsareid.inference.extract import extract as extract
    from dsareid.models.guide import Guide as Guide

__version__ = "0.1.0"

# Each public name and its module; a name must not be that of a module in this folder.
_PUBLIC = {
    "DSAError": "dsareid.ground.errors",
    "Guide": "dsareid.models.guide",
    "TrainConfig": "dsareid.engine",
    "embed": "dsareid.inference.embedder",
    "evaluate": "dsareid.evaluation",
    "export": "dsareid.inference.export",
    "extract": "dsareid.inference.extract",
    "rank": "dsareid.evaluation",
    "texture": "dsareid.densepose.textures",
    "train": "dsareid.engine",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dsareid' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
