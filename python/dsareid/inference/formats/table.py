"""The formats of an exported model by their suffixes."""

from dsareid.inference.formats import onnx, safetensors, torch_export

MODEL_FORMATS = {
    record.suffix: record for record in (safetensors.SAFETENSORS, onnx.ONNX, torch_export.TORCH_EXPORT)
}
