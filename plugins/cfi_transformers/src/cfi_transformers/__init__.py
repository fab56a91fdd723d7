"""Hugging Face pipelines for Cross-Framework Introspection."""
