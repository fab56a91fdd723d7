"""TorchRay's visualization methods for Cross-Framework Introspection (the library is for non-commercial use)."""
