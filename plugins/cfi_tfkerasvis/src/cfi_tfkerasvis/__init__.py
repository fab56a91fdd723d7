"""The methods of tf-keras-vis for Cross-Framework Introspection."""
