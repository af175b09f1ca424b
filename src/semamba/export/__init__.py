"""Models as ONNX graphs, and a runtime for them that does without torch. Import the module that you need:

- `semamba.export.onnx` writes graphs, with torch (`semamba export`);
- `semamba.export.runtime` runs them, with numpy, onnxruntime and soundfile alone.
"""
