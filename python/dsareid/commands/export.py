"""dsareid export"""

from dsareid.commands.options import OutPath, RunPath
from dsareid.inference.formats.base import Convention, ExportPrecision


def command(
    run: RunPath,
    out: OutPath,
    precision: ExportPrecision = "float32",
    convention: Convention = "dsareid",
) -> None:
    """Write the trained MF-Stream as one file, after comparing its features with those of the run.

    Args:
        run: The folder that train wrote.
        out: The file; its suffix names the format.
            .safetensors: weights and settings. .onnx: a graph for onnxruntime.
            .pt2: a graph for torch.export.load.
        precision: bfloat16, for .pt2 only, is two to three times as fast on processors that support it.
        convention: How an .onnx file takes its images. dsareid: bytes, which it normalises. torchreid: float,
            NCHW, normalised outside, as by torchreid and boxmot. ultralytics: float, NCHW, 0 to 1, crops
            stretched to squares.
    """
    from dsareid.ground.files import readable_size
    from dsareid.inference.export import export

    written = export(run, out, precision, convention)
    print(
        f"{out}: {readable_size(out.stat().st_size)}, model {written.model}\n"
        f"its features of random images differ from those of {run} by at most {written.deviation:.1e}, their "
        f"cosine similarity is at least {written.cosine:.6f}"
    )
