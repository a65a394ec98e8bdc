"""Open a bundle and answer with numpy and one engine; no torch, no transformers, no onnx."""
