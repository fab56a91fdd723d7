"""The public calls. `attribute` is an `Explainer` used once: its eight steps stand there, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cfi_core.adapters import adapter_for, find_framework
from cfi_core.attribution import Attribution
from cfi_core.binding import explain_unknown_arguments
from cfi_core.checking import check_layer, check_names, check_what_is_missing
from cfi_core.checking.inputs import read_inputs, run_as_it_is, run_original
from cfi_core.checking.purity import Examination
from cfi_core.columns import cells_of
from cfi_core.detection import detect_framework, find_original, load_original
from cfi_core.diagnosis import tell_what_is_missing
from cfi_core.errors import ArgumentError
from cfi_core.explainer import ATTRIBUTION_KINDS, VISUALIZATION_KINDS, explain_once, finish
from cfi_core.finding import find_methods
from cfi_core.framework import Layer, flatten
from cfi_core.listing import Listing
from cfi_core.preparation import unpack, unpack_model
from cfi_core.process import first_pass, keep_model, keep_process, use
from cfi_core.progress import phase, show
from cfi_core.records import Arguments, PendingLayer, Plan, Route, Translation, check_progress
from cfi_core.registry import registry
from cfi_core.routing import choose, choose_conversion
from cfi_core.specs import BatchSize, Translator
from cfi_core.translation import prepare, translate_model
from cfi_core.translation.conversion import Job, convert_anew, convert_thoroughly
from cfi_core.translation.guarding import guard


@explain_unknown_arguments
def attribute(
    model: Any,
    method_key: str,
    toolset: str | None = None,
    *,
    inputs: Any = None,
    explain: Sequence[str] | None = None,
    feature_names: Any = None,
    target: Any = None,
    layer: Any = None,
    reshape: Any = None,
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    defaults: str = "raw",
    plot: bool | str | Path = False,
    progress: bool | None = None,
    seed: int | None = None,
    batch_size: BatchSize = None,
) -> Attribution | PendingLayer:
    """Explains a model with an introspection method, whatever framework either of them is of.

    Args:
        model: A `torch.nn.Module`, a Keras 3 model, a `tf.Module`, `tf.function` or signature of a SavedModel, an
            `onnx.ModelProto` or the path of an `.onnx` file, an ONNX Runtime session, a scikit-learn estimator, or any
            function of arrays or of one framework's tensors (the framework that `inputs` are of); or one that brings
            its own preparation, such as a pipeline of texts or pictures, or an estimator of texts. It is left as it is:
            weights, mode, hooks, gradients and global random state are the same afterwards.
        method_key: For example `"grad_cam"`; `cfi.methods()` lists all.
        toolset: For example `"captum"`; None chooses one and warns if there are several.
        inputs: Array or tensor of any known framework, sample axis first, in the axis order of the model; a
            tuple for a model with several inputs; or a mapping of the model's own input names (a dict, what a
            tokenizer gives), whose values then come home under these names. What is no array in it (flags, None) is
            passed to the model as it is. A data frame (or, for an estimator, a dict of its columns) is explained column
            by column, whatever its cells are: they are exchanged whole with those of `baselines`.
        explain: Names of the inputs in such a mapping to explain; the others are held: part of every pass, never
            changed or differentiated. Left out, floating point inputs are explained and whole numbers beside them
            held; of whole numbers alone, masks, positions and token types are held. Of a data frame: names of columns,
            all of them if left out.
        feature_names: What the elements along the last axis of the inputs are called: a list of strings, one list per
            sample, the columns of a table, or a tokenizer, which turns tokens into their text; for several inputs a
            tuple of these, or a dict by their names. Left out, the columns of a data frame, or of the one that an
            estimator was fitted on.
        target: What to explain: a class index (a negative one counts from the end; also as an array of one element) or
            a class's name where the model knows it (`classes_` of an estimator, `config.id2label` of a transformer),
            `"predicted"` (the class with the largest value), a list with one of these per sample, a tuple into the
            output (of a model with several outputs it may begin with the path to one: keys, positions, attributes), in
            which a slice stands for a sum; one of `cfi.targets`; or a callable that gets the outputs as the model gives
            them, and gives one value per sample. Of several outputs `logits` is meant where none is named.
        layer: A layer of the model: the object or its name. `"auto"` takes the last one whose output has axes of space
            (or tokens on a grid) and which the target's gradient reaches there; `provenance["layer"]` says which.
            `"embeddings"` is the one that turns tokens into vectors; methods of inputs start there, too.
        reshape: Where a layer's tokens lie in the image, where that is not found or not right: `(height, width)`,
            `("class", height, width)` with the names of tokens that are no part of the grid, in front of it or behind,
            or a function of the layer's output that leaves such tokens out and moves axes. False: tokens stay tokens.
        neuron: Index of a unit of the layer's output (axes after the first, in the model's order), or a callable.
        baselines: Reference inputs: a number, or arrays with the axes of the inputs. For tokens also one number for
            each sample, the name of one (`"pad"`, `"mask"`, `"unk"`), or a `TokenBaseline`, which says what is kept.
            For a table a row by names of columns (a dict, a Series), or a data frame of one, of one for each sample, or
            of a background.
        init_args: Arguments of the toolset's constructor, in the toolset's words.
        exec_args: Arguments of the toolset's call, in the toolset's words.
        translator: Name of a translator, a list of names (a whole route), `"conversion"` or `"bridge"`.
        head: `"logit"` or `"output"`: where a softmax at the model's end is explained; None does as the
            method's paper says.
        defaults: Settings where you give none: `"raw"` gives the method as its paper defines it, `"toolset"` what the
            toolset's own users get (a softmax at the end explained at its output, unless `head` is given).
        plot: True puts a figure into `extras["figure"]` (and shows it in a notebook, once: the attribution as the value
            of that cell adds its caption); a path is written to, by the writer of its suffix.
        progress: Whether a line on the standard error says what is going on, and how long it will take, once the call
            has run for two seconds; None: in a terminal and in a Jupyter notebook.
        seed: Seeds everything random in the method; None draws a seed, which `provenance["seed"]` tells.
        batch_size: How many rows (samples, or samples times steps) go through the model at once, at most, and how many
            samples are explained together; `"auto"`: as many as memory allows, found while it runs. Whatever it is, the
            values are the same to rounding, and so are random draws: they belong to the seed and the sample's place.
            None: all samples together. `provenance["batch_size"]` tells what was done.

    Returns:
        The attribution; or a `PendingLayer`, if the method needs a layer and none is given.

    Raises:
        UnknownMethodError: No plugin offers the method.
        UnknownFrameworkError: The model is of no known framework.
        RouteError: The toolset cannot be reached.
        ArgumentError: An argument does not fit (`InputError`, `TargetError` and `LayerError` are of this kind).
        TranslationError: The model cannot be translated (`UnfaithfulTranslationError`: not without changing it).
        MethodError: The toolset failed (`OutOfMemoryError`: for want of memory).
    """
    return explain_once(Arguments(**locals()), ATTRIBUTION_KINDS)


@explain_unknown_arguments
def visualize_features(
    model: Any,
    method_key: str = "activation_maximization",
    toolset: str | None = None,
    *,
    inputs: Any = None,
    explain: Sequence[str] | None = None,
    feature_names: Any = None,
    target: Any = None,
    layer: Any = None,
    reshape: Any = None,
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    defaults: str = "raw",
    plot: bool | str | Path = False,
    progress: bool | None = None,
    seed: int | None = None,
    batch_size: BatchSize = None,
) -> Attribution:
    """Makes inputs that drive an output, a channel or a unit of the model as high as they can.

    Arguments and errors are those of `attribute`, with these meanings: `inputs` is where to start from; None starts
    from noise, if the model declares the shape of its inputs. `target` is the output to maximise; instead of it,
    `layer` together with `neuron` names a channel of a layer (one index) or one unit (an index for each axis, in the
    model's order). tf-keras-vis needs `exec_args={"input_range": (low, high)}`, the range of valid inputs.

    Returns:
        An attribution whose values are the inputs found.
    """
    result = explain_once(Arguments(**locals()), VISUALIZATION_KINDS)
    if isinstance(result, PendingLayer):
        raise ArgumentError(f"{method_key} needs a layer and one of its units: pass layer= and neuron=.")
    return result


@explain_unknown_arguments
def plan(
    model: Any,
    method_key: str,
    toolset: str | None = None,
    *,
    inputs: Any = None,
    explain: Sequence[str] | None = None,
    feature_names: Any = None,
    target: Any = None,
    layer: Any = None,
    reshape: Any = None,
    neuron: Any = None,
    baselines: Any = None,
    init_args: Mapping[str, Any] | None = None,
    exec_args: Mapping[str, Any] | None = None,
    translator: Translator = None,
    head: str | None = None,
    defaults: str = "raw",
    plot: bool | str | Path = False,
    progress: bool | None = None,
    seed: int | None = None,
    batch_size: BatchSize = None,
) -> Plan:
    """Says what `attribute` (or `visualize_features`) would do with the same arguments, without doing it.

    Returns:
        The plan: method, toolset, route and why; print it.

    Raises:
        CFIError: The same errors as far as names tell: methods, routes, layers, arguments that are missing, unknown or
            given twice. What has to be compared with the model (shapes, targets) is checked when it runs; only where
            no target is given the model runs once on the inputs, to see whether it needs one.
    """
    arguments, current = Arguments(**locals()), registry()
    with keep_process(current):
        methods = find_methods(current, arguments, ATTRIBUTION_KINDS | VISUALIZATION_KINDS)
        arguments = unpack(current, arguments, methods)
        original = find_original(current, arguments, methods)
        choice = choose(current, methods, original, arguments.translator)
        made = check_names(current, arguments, original, choice)
        use(current, original, choice.routes, choice.toolset_framework)
        with keep_model(original):
            check_what_is_missing(current, made, original)
        return made


def finish_execution_with_layer(pending: PendingLayer, layer: Any, *, progress: bool | None = None) -> Attribution:
    """Resumes a call that was waiting for a layer, without translating again.

    Args:
        pending: What `attribute` returned.
        layer: A layer of the user's model: the object or its name.
        progress: As for `attribute`; None: as the call was given it.

    Raises:
        LayerError: The layer is not part of the model, or cannot be used there.
        ArgumentError: The model has changed in the meantime.
    """
    if not isinstance(pending, PendingLayer):
        raise ArgumentError(
            f"finish_execution_with_layer takes the PendingLayer that cfi.attribute returned, not {pending!r}."
        )
    check_progress(progress)
    current, original = registry(), pending.call.original
    asked = pending.plan.arguments.progress if progress is None else progress
    with show(asked), keep_process(current):
        use(current, original, pending.plan.routes, pending.plan.toolset_framework)
        with keep_model(original, pending.call.purity):
            call = first_pass(current, lambda: check_layer(pending, layer))
            with tell_what_is_missing(call):
                prepared = guard(current, call, pending.prepared) if pending.prepared else prepare(current, call)
                return finish(current, call, prepared).attribution


def translate(
    model: Any,
    to: str,
    *,
    inputs: Any,
    translator: Translator = None,
    thorough: bool = False,
    progress: bool | None = None,
) -> Translation:
    """Translates a model into another framework and certifies the result.

    Args:
        model: As for `attribute`.
        to: Framework to translate to, such as `"torch"` or `"tensorflow"`.
        inputs: Samples to certify the translation on, in the axis order of the model.
        translator: As for `attribute`; left out, a conversion is taken.
        thorough: Measure wherever a method may go, besides on these samples: each of the first alone, larger batches,
            zeros, beyond the data, many passes one after the other, and gradients of all. `attribute` needs it not: it
            measures what its run feeds to the model.
        progress: As for `attribute`.

    Returns:
        The native model with its certificate and layer map.

    Raises:
        ArgumentError: There is no such framework, or the model is of it already; `InputError`: the inputs do not fit.
        RouteError: No translator leads there.
        TranslationError: No translator could translate it faithfully.

    Warns:
        ModelWarning: The model is no function of each sample (see `cfi_core.checking.purity`).
    """
    check_progress(progress)
    with show(progress), phase(f"preparing a translation to {to}"):
        return _translate(model, to, inputs, translator, convert_thoroughly if thorough else convert_anew)


def _translate(
    model: Any, to: str, inputs: Any, translator: Translator, convert: Callable[[Job, Route], Translation]
) -> Translation:
    current = registry()
    model, inputs = unpack_model(current, model, inputs)
    framework = detect_framework(current, model, inputs).name
    if framework == find_framework(current, to).name:
        raise ArgumentError(f"The model already is a {to} model; there is nothing to translate.")
    routes = choose_conversion(current, framework, to, translator)
    with keep_process(current):
        original = load_original(current, model, inputs)
        use(current, original, routes, to)
        given = read_inputs(current, original, cells_of(original.table, inputs))
        with Examination(original, given) as examination:
            outputs = first_pass(current, lambda: run_original(original, given, twin=examination.twin))
            purity = examination.judge(outputs)
        with keep_model(original, purity):
            arrays, made_of = (*given.arrays, *given.held_arrays), tuple(flatten(outputs))
            job = Job(current, original, adapter_for(current, to), arrays, made_of, by_sample=purity.by_sample)
            made = translate_model(job, routes, convert)
        return replace(made, input_names=original.names.every if original.names else ())


def layers(model: Any, inputs: Any = None) -> list[Layer]:
    """Lists the layers of a model under the names that `layer=` takes.

    Args:
        model: As for `attribute`.
        inputs: With them, output shapes are known for models of every kind.
    """
    current = registry()
    model, inputs = unpack_model(current, model, inputs)
    with keep_process(current):
        original = load_original(current, model, inputs)
        given = None if inputs is None else read_inputs(current, original, cells_of(original.table, inputs))
        use(current, original, (), original.framework)
        if given is None:
            return Listing(first_pass(current, lambda: original.adapter.layers(original.model)))
        with keep_model(original):
            first_pass(current, lambda: run_as_it_is(original, given))  # which says what is wrong with the inputs
            return Listing(original.adapter.layers(original.model, given.passed))
