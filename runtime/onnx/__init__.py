"""Bundles of the target `onnxruntime`: an ONNX file as it is, in ONNX Runtime, under the loop of compiled programs.

`program.py` opens a bundle, `session.py` is the session that the loop and the drafters use, `signatures.py` knows how
files name what they take and give. The package onnxruntime is imported when a bundle needs it.
"""
