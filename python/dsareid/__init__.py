"""DSA-reID: densely semantically aligned person re-identification.

What follows loads on first use, so that `import dsareid` alone needs no torch:

    texture(pictures, maps)             the part textures of a person, with DensePose maps or without
    train(preset("demo", ROOT, RUN))    train a network; TrainConfig has all settings
    evaluate(run)                       mAP and CMC of a trained network
    rank(query, gallery, ...)           mAP and CMC of any features
    export(run, file)                   a trained network as one file
    embed(run_or_file)(images)          features of images
    extract(model, images, out)         features of a folder of images, however many
    Guide                               the guide beside a backbone of your own
    DSAError                            what is raised where a file or an argument is wrong
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

# A name must not be that of a module in this folder.
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
