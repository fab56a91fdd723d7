"""Operations of autograd's graph by what becomes of relevance where the plain gradient carries it."""

from __future__ import annotations

from cfi_torchgraph.operations import AVERAGING, BATCH_NORM, LAYOUT, MAX_POOL, REPEATING, WEIGHTED, words

MOVING = LAYOUT | REPEATING
"""The gradient hands on all relevance that arrives."""
CHOOSING = MAX_POOL | {"Relu"}
"""Hand all relevance to the winner, or stop it at units that are off, which get none from the rules of LRP."""
ACTIVATIONS = words(
    "Relu Gelu Elu Celu Selu Sigmoid Tanh Silu Mish LeakyRelu PreluKernel Prelu RreluWithNoise Hardtanh Hardsigmoid "
    "Hardswish Softplus Softshrink Hardshrink Threshold LogSigmoid Clamp ClampMin ClampMax"
)
RULED_AS_MODULES = (ACTIVATIONS - {"Relu"}) | WEIGHTED | AVERAGING | BATCH_NORM
"""What Zennit's composites have rules for where a module computes it, and none where a function does."""
