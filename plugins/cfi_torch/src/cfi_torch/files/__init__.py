"""Graphs of torch's own modules and functions as files that hold no code: the graph in JSON, weights as safetensors.

What a file names is looked up in lists (`allowed`), so it cannot choose what is imported or called. What the lists do
not have is not written: modules of classes of their own, hooks, functions of other libraries.
"""
