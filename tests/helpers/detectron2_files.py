"""Files as detectron2 writes them, made without detectron2."""

import base64
import io
import sys
import types
from dataclasses import make_dataclass

import numpy as np
import pytest
import torch
from PIL import Image

CHARTS = "densepose.structures.chart_result"
FIELDS = {
    f"{CHARTS}.DensePoseChartResult": ["labels", "uv"],
    f"{CHARTS}.DensePoseChartResultWithConfidences": ["labels", "uv", "sigma_1", "kappa_u"],
    f"{CHARTS}.DensePoseChartResultQuantized": ["labels_uv_uint8"],
    f"{CHARTS}.DensePoseChartResultCompressed": ["shape_chw", "labels_uv_str"],
    "densepose.structures.cse.DensePoseEmbeddingPredictorOutput": ["embedding", "coarse_segm"],
    "densepose.structures.chart.DensePoseChartPredictorOutput": ["coarse_segm", "fine_segm", "u", "v"],
    "detectron2.structures.instances.Instances": ["fields"],
}


class Mimic:
    """detectron2's classes; their modules are there only while something is saved."""

    def __init__(self):
        self.modules, self.classes = {}, {}
        for path, fields in FIELDS.items():
            module, _, name = path.rpartition(".")
            kind = make_dataclass(name, fields, namespace={"__module__": module})
            for end in (*(i for i, letter in enumerate(module) if letter == "."), len(module)):
                self.modules.setdefault(module[:end], types.ModuleType(module[:end]))
            setattr(self.modules[module], name, kind)
            self.classes[name] = kind

    def __getattr__(self, name):
        return self.classes[name]

    def save(self, value, path, legacy=False, protocol=2):
        with pytest.MonkeyPatch.context() as patch:
            for name, module in self.modules.items():
                patch.setitem(sys.modules, name, module)
            torch.save(value, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
        return path


def png_text(chart, mode="RGB"):
    """uint8 [3, h, w] as detectron2 and the COCO challenge hold it: R = I."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(chart.transpose(1, 2, 0))).convert(mode).save(buffer, "png")
    return base64.encodebytes(buffer.getvalue()).decode()
