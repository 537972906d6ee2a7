"""Models to ONNX: one function per distinct module, standard operators, quantization schemes as functions."""

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.export, not the bare folder: run from an installed forerun")

from forerun.export.component import ExportReport, TensorReport
from forerun.export.exporter import export_draft, export_model

__all__ = ["ExportReport", "TensorReport", "export_draft", "export_model"]
