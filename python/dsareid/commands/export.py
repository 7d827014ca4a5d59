"""dsareid export"""

from dsareid.commands.options import positional
from dsareid.ground.files import readable_size
from dsareid.inference.embedder import Precision
from dsareid.inference.export import export


def command(run: positional("RUN"), out: positional("OUT"), precision: Precision = "float32") -> None:
    """Write the trained MF-Stream as one file, compared with the run before it gets its name.

    Args:
        run: The folder that train wrote.
        out: The file; its suffix says which form.
            .safetensors: weights and settings. .onnx: a graph for onnxruntime.
            .pt2: a graph for torch.export.load.
        precision: bfloat16, of .pt2 alone: two to three times as fast on processors that have it.
    """
    written = export(run, out, precision)
    print(
        f"{out}: {readable_size(out.stat().st_size)}, model {written.model}\n"
        f"its features of random images differ from those of {run} by at most {written.deviation:.1e}, their "
        f"cosine similarity is at least {written.cosine:.6f}"
    )
