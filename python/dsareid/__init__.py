"""DSA-reID: densely semantically aligned person re-identification.

These names load on first use, so `import dsareid` alone needs no torch:

    texture(pictures, maps)             the part textures of a person, with or without DensePose maps
    train(preset("demo", ROOT, RUN))    train a network; TrainConfig has all settings
    evaluate(run)                       mAP and CMC of a trained network
    rank(query, gallery, ...)           mAP and CMC of any features
    export(run, file)                   a trained network as one file
    embed(run_or_file)(images)          features of images
    extract(model, images, out)         features of all images below a folder
    Guide                               the guide, to train a backbone of your own
    DSAError                            the error for a wrong file or argument
"""

from typing import TYPE_CHECKING

from dsareid.ground.lazy import lazy_names

if TYPE_CHECKING:
    from dsareid.densepose.textures import texture
    from dsareid.engine.loop import train
    from dsareid.engine.presets import preset
    from dsareid.evaluation import evaluate, rank
    from dsareid.ground.errors import DSAError
    from dsareid.inference.embedder import embed
    from dsareid.inference.export import export
    from dsareid.inference.extract import extract
    from dsareid.models.guide import Guide
    from dsareid.runs.config import TrainConfig

__version__ = "0.1.0"

# A name here must differ from every module in this folder.
__all__ = [
    "DSAError",
    "Guide",
    "TrainConfig",
    "embed",
    "evaluate",
    "export",
    "extract",
    "preset",
    "rank",
    "texture",
    "train",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".densepose.textures": ["texture"],
        ".engine.loop": ["train"],
        ".engine.presets": ["preset"],
        ".evaluation": ["evaluate", "rank"],
        ".ground.errors": ["DSAError"],
        ".inference.embedder": ["embed"],
        ".inference.export": ["export"],
        ".inference.extract": ["extract"],
        ".models.guide": ["Guide"],
        ".runs.config": ["TrainConfig"],
    },
)
