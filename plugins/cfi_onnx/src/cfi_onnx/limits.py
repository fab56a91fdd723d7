"""What an ONNX model may take: bounds that a stranger's file cannot pass, and that the owner of a large one raises.

Every limit is an environment variable, read when it is needed, so that it holds in child processes too. What a model
needs grows with the weights that its files really hold and with the inputs that it is run on, both of which are the
user's; the limits bound what comes on top of that.
"""

from __future__ import annotations

from cfi_core.framework import Limit

MIB = 2**20
GIB = 2**30


STRUCTURE = Limit("CFI_ONNX_STRUCTURE", 48 * MIB, "bytes")
"""Of a file, all that is no weight: nodes, names, documentation, lists of integers. 20,000 nodes with the stack traces
that torch's exporter adds are 30 MB. In memory protobuf needs up to ten times as much."""

PARTS = Limit("CFI_ONNX_PARTS", 2_000_000, "parts")
"""Fields in the file: each costs memory and time however short it is. 20,000 nodes have some 500,000."""

UNKNOWN = Limit("CFI_ONNX_UNKNOWN", MIB, "bytes")
"""Fields that this version of ONNX does not know, which protobuf keeps and copies. New versions add short ones."""

NODES = Limit("CFI_ONNX_NODES", 50_000, "nodes")
"""With all subgraphs, and functions written out as often as they are called. Language models of billions of weights
have 10,000; ONNX Runtime needs ten seconds to prepare 200,000."""

DEPTH = Limit("CFI_ONNX_DEPTH", 32, "levels")
"""Subgraphs in subgraphs, and functions that call functions. Exporters make fewer than ten."""

UNSTORED = Limit("CFI_ONNX_UNSTORED", 128 * MIB, "bytes")
"""By how much the weights that a model claims may exceed what its files hold on disk: holes, and places that many
weights share. Tied weights are shared by name, or stay below it."""

MEMORY = Limit("CFI_ONNX_MEMORY", 640 * MIB, "bytes")
"""What a pass may allocate, besides `PER_SAMPLE` for each sample (or `PER_INPUT` times the inputs, if that is more) and
`PER_WEIGHT` times the weights."""

SECONDS = Limit("CFI_ONNX_SECONDS", 6, "seconds")
"""What one pass may take, besides `SECONDS_PER_SAMPLE` for each sample, `SECONDS_PER_MIB` of inputs and
`SECONDS_PER_GIB` of weights; waiting for other work on the machine is not counted. A Loop that never ends is ended by
it."""

PER_SAMPLE = 48 * MIB
"""Activations of a sample that are alive together, where it is small: tokens, a picture (VGG-16 at 224 px: 26 MB)."""

PER_INPUT = 256
"""The same for large samples: a U-Net of a photograph holds some 80 times its input, one of a volume of one channel 200
times."""

PER_WEIGHT = 4
"""ONNX Runtime keeps weights as they are and packed for its kernels, and may need both cast to another type."""

SECONDS_PER_SAMPLE = 0.25
"""The time that ResNet-152 needs on one core."""

SECONDS_PER_MIB = 3.0
"""A U-Net of a volume of 128 voxels each way, which is 8 MiB, does some 10¹² operations: 20 seconds on two cores."""

SECONDS_PER_GIB = 100
"""A weight that is used for each of 500 tokens costs a thousand operations, which a core does in 10 nanoseconds."""


def allowed_memory(weights: int, samples: int = 0, inputs: int = 0) -> int:
    """Bytes that a model may allocate in a pass over so many samples, which are so many bytes."""
    return MEMORY.value + PER_WEIGHT * weights + max(PER_SAMPLE * samples, PER_INPUT * inputs)


def allowed_seconds(weights: int, samples: int = 0, inputs: int = 0) -> float:
    """How long a pass over so many samples, which are so many bytes, may take."""
    of_inputs = SECONDS_PER_SAMPLE * samples + SECONDS_PER_MIB * inputs / MIB
    return SECONDS.value + of_inputs + SECONDS_PER_GIB * weights / GIB
