"""SHAP's explainers and plots for Cross-Framework Introspection."""
