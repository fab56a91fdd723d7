"""What an ONNX operator means, whatever it is converted to: from its attributes and the inputs that are known.

Everything here refuses (`grammar.Refusal`) what it cannot tell.
"""
