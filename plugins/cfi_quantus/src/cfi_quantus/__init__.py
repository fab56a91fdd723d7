"""Quantus's metrics of explanations for Cross-Framework Introspection."""
