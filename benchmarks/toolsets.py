"""Every method of every toolset on one network in five forms, each compared with the toolset run on its own twin.

    python benchmarks/toolsets.py [toolset or method key ...]

The network is the small CNN of the tests (`tests/cross/shared_cnn.py`): a torch module, a Keras model, an ONNX file, a
flax module and a function of numpy arrays, all with the same weights. A cell says how the model reached the toolset and
the largest difference, relative to the largest value, from the toolset called on the twin of its own framework;
or why there is no answer. The table is markdown, as it stands in docs/toolsets.md.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cross"))

import numpy as np
from method_arguments import ARGUMENTS, in_keras_order
from shared_cnn import Twins, make_twins, to_first

import cfi_core as cfi
from cfi_core.specs import MethodSpec

SEED = 5
HOMES = {"torch": "torch", "tensorflow": "Keras"}
"""The column whose model a toolset of that framework takes as it is."""


@dataclass(frozen=True)
class Form:
    """The network as one kind of user has it.

    Attributes:
        model: What is given to CFI.
        inputs: The two images, in its axis order.
        channels_last: Whether that is channels last.
        layers: What its layers are called, where not as in the torch module; None if it has none.
    """

    model: Any
    inputs: np.ndarray
    channels_last: bool
    layers: Mapping[str, str] | None


def make_forms(twins: Twins, folder: Path) -> dict[str, Form]:
    """The network in five forms."""
    path = folder / "cnn.onnx"
    return {
        "torch": Form(twins.torch_model, twins.first, False, {}),
        "Keras": Form(twins.keras_model, twins.last, True, {}),
        "ONNX": Form(write_onnx(twins, path), twins.first, False, name_nodes(path)),
        "JAX": Form(make_flax(twins), twins.last, True, {}),
        "callable": Form(make_function(twins), twins.first, False, None),
    }


def write_onnx(twins: Twins, path: Path) -> str:
    """The torch module, exported."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            twins.torch_model,
            (torch.tensor(twins.first),),
            path,
            dynamo=False,
            dynamic_axes={"images": {0: "samples"}},
            input_names=["images"],
        )
    return str(path)


def name_nodes(path: Path) -> dict[str, str]:
    """The nodes that give what the modules of the same name give."""
    return {name.split("/")[1]: name for name in (layer.name for layer in cfi.layers(str(path))) if "/" in name}


def make_flax(twins: Twins) -> Any:
    """The Keras twin as a flax module: both are channels last."""
    import jax.numpy as jnp
    from flax import nnx

    class Relu(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return nnx.relu(x)

    class CNN(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv1 = nnx.Conv(3, 6, (3, 3), padding="SAME", rngs=rngs)
            self.relu1 = Relu()
            self.conv2 = nnx.Conv(6, 8, (3, 3), padding="VALID", rngs=rngs)
            self.relu2 = Relu()
            self.fc = nnx.Linear(320, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.max_pool(self.relu1(self.conv1(x)), (2, 2), (2, 2))
            x = self.relu2(self.conv2(x))
            return self.fc(x.reshape(len(x), -1))

    model = CNN(nnx.Rngs(0))
    for name in ("conv1", "conv2", "fc"):
        kernel, bias = twins.keras_model.get_layer(name).get_weights()
        getattr(model, name).kernel = nnx.Param(jnp.asarray(kernel))
        getattr(model, name).bias = nnx.Param(jnp.asarray(bias))
    return model


def make_function(twins: Twins) -> Callable[[np.ndarray], np.ndarray]:
    """The torch module behind a function of numpy arrays."""
    import torch

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return twins.torch_model(torch.tensor(images, dtype=torch.float32)).numpy()

    return predict


def explain(form: Form, method: MethodSpec, arguments: Mapping[str, Any]) -> cfi.Attribution:
    """The call as a user of that form writes it.

    Raises:
        CFIError: There is no answer.
    """
    written = in_keras_order(dict(arguments)) if form.channels_last else dict(arguments)
    if written.get("layer") is not None and form.layers:
        written["layer"] = form.layers.get(written["layer"], written["layer"])
        own = dict(written.get("exec_args", {}))
        if "contrast_layer" in own:
            written["exec_args"] = {
                **own,
                "contrast_layer": form.layers.get(own["contrast_layer"], own["contrast_layer"]),
            }
    found = cfi.attribute(form.model, method.key, method.toolset, inputs=form.inputs, seed=SEED, **written)
    if isinstance(found, cfi.PendingLayer):
        raise cfi.LayerError("a model without layers")
    return found


def compare(found: cfi.Attribution, native: cfi.Attribution, *, last: tuple[bool, bool]) -> float:
    """The largest difference relative to the largest value."""
    scale = max(float(np.abs(values).max()) for values, _ in native.parts)
    return max(
        float(np.abs(turn(values, dims, last[0]) - turn(others, its_dims, last[1])).max()) / scale
        for (values, dims), (others, its_dims) in zip(found.parts, native.parts, strict=True)
    )


def turn(values: np.ndarray, dims: tuple[str, ...], channels_last: bool) -> np.ndarray:
    """The values channels first."""
    return to_first(values) if channels_last and "channel" in dims and values.ndim > 2 else values


def fill_row(forms: Mapping[str, Form], method: MethodSpec, arguments: Mapping[str, Any], home: str) -> list[str]:
    """One cell for each form."""
    native = explain(forms[home], method, arguments)
    cells = []
    for name, form in forms.items():
        try:
            found = native if name == home else explain(form, method, arguments)
        except cfi.CFIError as error:
            cells.append(shorten(error))
            continue
        last = form.channels_last, forms[home].channels_last
        apart = compare(found, native, last=last)
        route = " ".join(found.route) or "native"
        cells.append("native" if name == home else f"{route} {apart:.0e}" if apart else f"{route} 0")
    return cells


def shorten(error: cfi.CFIError) -> str:
    """Why there is no answer, in a few words."""
    if missing := re.search(r"missing ([a-z_, ]+)", str(error)):
        return f"– needs {missing[1].strip().replace('_', ' ')}"
    text = str(error).split(". ")[0].replace("|", "/").replace("\n", " ")
    return f"{type(error).__name__}: {text[:90]}"


def main(wanted: list[str]) -> None:
    """Prints the table."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        forms = make_forms(make_twins(softmax=False), Path(folder))
        print(f"| method | toolset | {' | '.join(forms)} |")
        print("| --- | --- |" + " --- |" * len(forms))
        frameworks = {entry.spec.name: entry.spec.framework for entry in cfi.toolsets()}
        for method in cfi.methods():
            if wanted and not {method.key, method.toolset} & {*wanted}:
                continue
            arguments = ARGUMENTS.get(method.toolset, {}).get(method.key)
            if arguments is None:  # feature visualization and trees have tests of their own
                continue
            cells = fill_row(forms, method, arguments, HOMES[frameworks[method.toolset]])
            print(f"| `{method.key}` | {method.toolset} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
