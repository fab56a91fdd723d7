"""ONNX models and ONNX Runtime sessions as frameworks of Cross-Framework Introspection."""
