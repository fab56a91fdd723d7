"""PyTorch models as a framework of Cross-Framework Introspection."""
