"""Zennit's layer-wise relevance propagation for Cross-Framework Introspection."""
