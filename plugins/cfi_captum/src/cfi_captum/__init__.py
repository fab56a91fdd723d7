"""Captum's attribution methods as a plugin of Cross-Framework Introspection."""
