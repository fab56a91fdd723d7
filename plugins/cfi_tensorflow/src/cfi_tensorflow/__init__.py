"""Keras and TensorFlow models as a framework of Cross-Framework Introspection."""
