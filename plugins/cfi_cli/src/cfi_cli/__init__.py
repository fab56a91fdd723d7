"""The command `cfi`, and reports on one page of HTML, for Cross-Framework Introspection."""
