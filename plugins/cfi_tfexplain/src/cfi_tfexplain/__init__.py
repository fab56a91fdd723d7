"""The methods of tf-explain for Cross-Framework Introspection."""
