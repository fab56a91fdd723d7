"""Drawings of attributions, for Cross-Framework Introspection."""
