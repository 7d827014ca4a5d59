"""dsareid export"""

from dsareid.commands.options import OutPath, RunPath
from dsareid.inference.formats.base import ExportPrecision


def command(run: RunPath, out: OutPath, precision: ExportPrecision = "float32") -> None:
    """Write the trained MF-Stream as one file, after comparing its features with those of the run.

    Args:
        run: The folder that train wrote.
        out: The file; its suffix names the format.
            .safetensors: weights and settings. .onnx: a graph for onnxruntime.
            .pt2: a graph for torch.export.load.
        precision: bfloat16, for .pt2 only, is two to three times as fast on processors that support it.
    """
    from dsareid.ground.files import readable_size
    from dsareid.inference.export import export

    written = export(run, out, precision)
    print(
        f"{out}: {readable_size(out.stat().st_size)}, model {written.model}\n"
        f"its features of random images differ from those of {run} by at most {written.deviation:.1e}, their "
        f"cosine similarity is at least {written.cosine:.6f}"
    )
