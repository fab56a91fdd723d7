"""JAX and Flax models as a framework of Cross-Framework Introspection."""
