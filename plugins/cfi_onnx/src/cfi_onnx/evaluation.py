"""Runs models within their limits: by ONNX Runtime where it is installed, by ONNX's reference evaluator otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from cfi_core.errors import InputError
from cfi_core.turns import Lock
from cfi_onnx.files import hollow, large_weights
from cfi_onnx.limits import GIB, MEMORY, MIB, allowed_memory, allowed_seconds
from cfi_onnx.sizes import Sizes, most_samples, sizes
from cfi_onnx.structure import tensor_bytes
from cfi_onnx.watch import watch_run

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds, float, int], list[Any]]
"""Runs on inputs, in so many seconds and bytes."""

_QUIET = 4  # what is fatal only: errors are raised, and a cut-out graph has parts that nothing uses
_LARGEST_PROTO = 3 * GIB // 2
"""Weights from which on a model is handed over in parts: protobuf writes no message of two gigabytes."""

_MOST_FOLDED = 16 * MIB
_registering = Lock()
_registered = 0


class Evaluator:
    """A model ready to run. What a pass takes is told before it runs where the graph tells it, and bounded anyway."""

    def __init__(self, model: ModelProto, *, runtime: bool) -> None:
        """Prepares nothing yet.

        Args:
            model: The model.
            runtime: By ONNX Runtime instead of the reference evaluator.
        """
        self._model, self._runtime = model, runtime
        self._weights = sum(tensor_bytes(one) for one in model.graph.initializer)
        self._known: dict[tuple[tuple[int, ...], ...], Sizes] = {}
        self._sessions: dict[tuple[int, bool], Run] = {}

    def __call__(self, feeds: Feeds) -> list[Any]:
        """All outputs.

        Raises:
            InputError: The pass takes more than a limit allows, or the model cannot be run on these inputs.
        """
        samples, given = most_samples(feeds), sum(np.asarray(value).nbytes for value in feeds.values())
        memory = allowed_memory(self._weights, samples, given)
        found = self._sizes(feeds)
        if found.peak > memory:
            raise MEMORY.error(
                f"A pass over {samples} samples would hold {found.peak:,} bytes of results at a time, and {memory:,} "
                f"are allowed for a model of this size",
                found.peak,
            )
        run = self._session(found, memory)
        return run(feeds, allowed_seconds(self._weights, samples, given), memory)

    def _sizes(self, feeds: Feeds) -> Sizes:
        shapes = {name: np.shape(value) for name, value in feeds.items()}
        key = tuple(shapes.values())
        if key not in self._known:
            try:
                self._known[key] = sizes(self._model, shapes)
            except Exception:  # noqa: BLE001 - shape inference fails in many ways; then the pass itself is bounded
                self._known[key] = Sizes(0, complete=False, slow_constants=True)
        return self._known[key]

    def _session(self, found: Sizes, memory: int) -> Run:
        """The session for such inputs; where the graph does not tell what they take, one of limited memory."""
        arena = 0 if found.complete else _arena_size(memory)
        key = (arena, found.slow_constants)
        if key not in self._sessions:
            self._sessions[key] = (
                _runtime(self._model, self._weights, arena, found.slow_constants)
                if self._runtime
                else _reference(self._model)
            )
        return self._sessions[key]


def _refusal(error: BaseException) -> InputError:
    lines = str(error).strip().splitlines()
    reason = lines[0][:300] if lines else type(error).__name__
    return InputError(f"The ONNX model does not run: {reason.removesuffix('.')}.")


# By ONNX Runtime


def _runtime(model: ModelProto, weights: int, arena: int, slow_constants: bool) -> Run:
    """A session, whose passes are ended from outside.

    Args:
        model: The model.
        weights: Bytes of its weights.
        arena: Bytes that its results may take; 0 if that is known beforehand.
        slow_constants: Whether ONNX Runtime is kept from computing what depends on no input.
    """
    from onnxruntime import InferenceSession, RunOptions, SessionOptions

    options = SessionOptions()
    options.log_severity_level = _QUIET
    if slow_constants:
        # Where ONNX Runtime computes constants while it prepares a model, nothing can end it.
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_MOST_FOLDED))
    left_out = ["ConstantFolding"] if slow_constants else []
    if arena:
        _register_arena(arena)
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False  # it takes memory for a whole pass, before the limit is looked at
    has_texts = any(node.op_type == "StringConcat" for node in model.graph.node)
    stop = getattr(options, "set_load_cancellation_flag", lambda stopped: None)
    content, kept = _hand_over(model, options)
    try:
        with watch_run(lambda: stop(True), allowed_seconds(weights)):
            session = InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
            )
    except InputError:
        raise
    except Exception as error:
        raise _refusal(error) from error

    def run(feeds: Feeds, seconds: float, memory: int, kept: list[Any] = kept) -> list[Any]:
        """Runs the session, which reads the weights that are kept where they lie."""
        running = RunOptions()
        running.log_severity_level = _QUIET
        if arena:
            running.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        end = partial(setattr, running, "terminate", True)
        try:
            # Numbers come from the arena; texts do not, and double before anyone looks.
            with watch_run(end, seconds, None if not arena else memory // 2 if has_texts else memory):
                return list(session.run(None, dict(feeds), running))
        except InputError:
            raise
        except Exception as error:
            if "BFCArena" in str(error) or "bad_alloc" in str(error):
                raise MEMORY.error(
                    f"A pass of the model asks for more than the {memory:,} bytes that are left"
                ) from error
            raise _refusal(error) from error
        finally:
            del running

    return run


def _hand_over(model: ModelProto, options: Any) -> tuple[bytes, list[Any]]:
    """The model for ONNX Runtime; the large weights of one too large for a message come by themselves."""
    large = list(large_weights(model))
    if sum(map(tensor_bytes, large)) < _LARGEST_PROTO:
        return model.SerializeToString(), []
    from onnxruntime import OrtValue

    outline = hollow(model)
    names = {one.name for one in large}
    kept = [value for value in outline.graph.input if value.name not in names]
    del outline.graph.input[:]
    outline.graph.input.extend(kept)
    for one in large:
        stub = outline.graph.initializer.add(name=one.name, data_type=one.data_type, dims=one.dims)
        stub.data_location = TensorProto.EXTERNAL
        stub.external_data.add(key="location", value="weights")
    values = [OrtValue.ortvalue_from_numpy(numpy_helper.to_array(one)) for one in large]
    options.add_external_initializers([one.name for one in large], values)
    return outline.SerializeToString(), values


def _arena_size(memory: int) -> int:
    """Rounded up to a power of two where it is large, so that it is seldom another one."""
    return 1 << max(memory - 1, 1).bit_length() if memory > GIB else memory


def _register_arena(wanted: int) -> None:
    """Has ONNX Runtime take the memory of sessions that ask for it from an arena of limited size.

    The arena belongs to the process, and sessions of others do not ask for it.
    """
    global _registered
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    with _registering:
        if wanted != _registered:
            place = onnxruntime.OrtMemoryInfo(
                "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
            )
            state.create_and_register_allocator(
                place, onnxruntime.OrtArenaCfg({"max_mem": wanted, "arena_extend_strategy": 0})
            )
            _registered = wanted


# By the reference evaluator


def _reference(model: ModelProto) -> Run:
    from cfi_onnx.reference import BoundedEvaluator, within

    try:
        evaluator = BoundedEvaluator(model)
    except InputError:
        raise
    except Exception as error:
        raise _refusal(error) from error

    def run(feeds: Feeds, seconds: float, memory: int) -> list[Any]:
        try:
            return list(within(partial(evaluator.run, None, dict(feeds)), seconds, memory))
        except InputError:
            raise
        except MemoryError as error:
            raise MEMORY.error(f"A pass of the model asks for more than the {memory:,} bytes that are left") from error
        except Exception as error:
            raise _refusal(error) from error

    return run
