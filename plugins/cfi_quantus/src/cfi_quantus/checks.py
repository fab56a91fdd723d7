"""What Quantus would do wrong, or fail at without a reason: refused before it runs, with the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from cfi_core.errors import ArgumentError, InputError, MethodError, ModelWarning, warn
from cfi_quantus.settings import Setting
from cfi_quantus.workarounds import SEUCLIDEAN

_FEWEST_FOR_SSIM = 7


@dataclass(frozen=True, eq=False)
class Case:
    """One metric and what it is to be measured on, before Quantus.

    Attributes:
        setting: The metric with its arguments.
        inputs: Samples, channels, and the rest.
        values: The attributions: as the inputs, or with one channel.
        masks: Where the objects are, with one channel; None where they are not known.
        outputs: Number of outputs of the model.
    """

    setting: Setting
    inputs: np.ndarray
    values: np.ndarray
    masks: np.ndarray | None
    outputs: int

    @property
    def spatial(self) -> tuple[int, ...]:
        """Sizes behind the channels."""
        return tuple(self.inputs.shape[2:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.inputs.shape[1])

    def refuse(self, reason: str, kind: type[Exception] = ArgumentError) -> None:
        """Raises the error."""
        raise kind(f"{self.setting.label}: {reason}")


def check_case(case: Case) -> None:
    """Refuses what does not fit, or what Quantus has a fault in.

    Raises:
        ArgumentError: An argument does not fit the inputs (`InputError`: the inputs do not fit the metric).
        MethodError: Quantus computes something else than the metric.
    """
    metric = case.setting.metric
    if metric.images and len(case.spatial) != 2:
        case.refuse(
            f"it is defined on images, and the inputs have {len(case.spatial)} axes besides channels.", InputError
        )
    if metric.masks:
        _check_masks(case)
    if case.outputs == 1 and case.setting.softmax:
        case.refuse("a softmax of one output is 1 whatever the model does; pass softmax=False.")
    if len(case.inputs) < 2 and metric.compares_samples and metric.name != "ROAD":
        case.refuse("it compares samples, so it needs two or more.", InputError)
    if case.setting.takes("features_in_step"):
        _check_steps(case)
    if check := _CHECKS.get(metric.name):
        check(case)


def _check_masks(case: Case) -> None:
    if case.masks is None:
        case.refuse("it needs to know where the object is: pass masks=, ones inside and zeros outside.")
        return
    if case.values.shape[1] > 1:
        case.refuse(
            f"masks have no channels, the attributions {case.values.shape[1]}: pass channels='sum' (or 'mean', "
            f"'norm') to put them together."
        )
    if empty := [str(i) for i, mask in enumerate(case.masks) if not mask.any()]:
        case.refuse(f"the masks of samples {', '.join(empty)} mark nothing. Leave these samples out.", InputError)


def _check_steps(case: Case) -> None:
    step, features = case.setting.value("features_in_step"), prod(case.spatial)
    if type(step) is not int or step < 1 or features % step:
        case.refuse(f"features_in_step={step!r} does not divide the {features} features of a channel.")


def _check_subset(case: Case, name: str) -> None:
    size, features = case.setting.value(name), prod(case.spatial)
    if size >= features:
        default = "" if name in case.setting.init else " (Quantus's default)"
        case.refuse(f"{name}={size}{default} must be smaller than the number of features of a channel, {features}.")


def _correlation(case: Case) -> None:
    _check_subset(case, "subset_size")


def _top_k(case: Case) -> None:
    _check_subset(case, "k")


def _monotonicity(case: Case) -> None:
    if given := sorted({"perturb_func", "perturb_func_kwargs"} & set(case.setting.init)):
        case.refuse(f"features are added to a baseline, so {', '.join(given)} has no meaning. Pass perturb_baseline=.")


def _weighted(case: Case) -> None:
    if case.setting.value("weighted"):
        case.refuse(
            "Quantus 0.6 computes another weight than the paper's with weighted=True. Leave it out.", MethodError
        )


def _road(case: Case) -> None:
    if case.channels > 1:
        case.refuse(
            f"Quantus 0.6 takes values of {case.channels} channels for so many pixels. It can be measured on inputs "
            f"with one channel.",
            MethodError,
        )
    features = prod(case.spatial)
    percentages = case.setting.value("percentages") or list(range(1, 100, 2))
    if wrong := [p for p in percentages if not 1 <= int(features * p / 100) < features]:
        least = 100 / features
        case.refuse(
            f"of {features} pixels, percentages {', '.join(map(str, wrong))} take none or all. Pass percentages=, each "
            f"at least {least:.3g} and below 100."
        )


def _infidelity(case: Case) -> None:
    sizes = case.setting.value("perturb_patch_sizes") or [4]
    if wrong := [size for size in sizes if any(length % size for length in case.spatial)]:
        case.refuse(
            f"patches of {', '.join(map(str, wrong))} do not divide images of {case.spatial}. Pass "
            f"perturb_patch_sizes= with sizes that divide both."
        )


def _continuity(case: Case) -> None:
    steps, width = case.setting.value("nr_steps"), case.spatial[1]
    if steps > 2 * width or (2 * width + 1) % steps == 0:
        case.refuse(
            f"Quantus cannot divide the {2 * width + 1} translations of an image of width {width} into nr_steps="
            f"{steps} (images that are all empty, or one beyond the edge). Pass nr_steps= of at most {2 * width} that "
            f"does not divide {2 * width + 1}."
        )
    if given := sorted({"perturb_func", "perturb_baseline", "perturb_func_kwargs"} & set(case.setting.init)):
        case.refuse(f"Quantus ignores {', '.join(given)}: it always translates, over black. Leave them out.")
    if case.setting.value("return_nan_when_prediction_changes") and not hasattr(np, "NaN"):
        case.refuse("return_nan_when_prediction_changes needs numpy below 2. Leave it out.", MethodError)


def _sufficiency(case: Case) -> None:
    flat = case.values.reshape(len(case.values), -1)
    flat = np.abs(flat) if case.setting.value("abs") else flat
    if case.setting.value("distance_func") == SEUCLIDEAN and (constant := int((np.ptp(flat, axis=0) == 0).sum())):
        case.refuse(
            f"its distance divides by the variance over samples, which is zero for {constant} of {flat.shape[1]} "
            f"features, so every distance would be none. Pass distance_func='euclidean' or another of scipy's.",
            MethodError,
        )


def _random_logit(case: Case) -> None:
    classes = case.setting.value("num_classes") if "num_classes" in case.setting.init else case.outputs
    if not 2 <= classes <= case.outputs:
        case.refuse(f"num_classes={classes} leaves no other class to explain: the model has {case.outputs} outputs.")
    if case.setting.value("similarity_func") is None and case.values[0].size < _FEWEST_FOR_SSIM:
        case.refuse(
            f"Quantus's default similarity (ssim) needs {_FEWEST_FOR_SSIM} features. Pass similarity_func=, such as "
            f"quantus.correlation_pearson."
        )


def _completeness(case: Case) -> None:
    if case.values.shape[1] != case.channels:
        case.refuse(
            "Quantus replaces as many features as there are values, so of a map over several channels the first "
            "channel alone. It needs a value for each element of the inputs.",
            MethodError,
        )
    if "normalise" not in case.setting.init:
        warn(
            f"{case.setting.label}: Quantus normalises attributions by default, after which no sum is kept, and then "
            f"compares for equality to the last bit. Pass normalise=False.",
            ModelWarning,
        )


def _non_sensitivity(case: Case) -> None:
    if case.setting.value("features_in_step") != 1:
        case.refuse("Quantus 0.6 compares steps of several features with single ones. Leave features_in_step out.")


def _representation(case: Case) -> None:
    if any(index < 0 for index in case.setting.value("layer_indices") or ()):
        case.refuse("Quantus 0.6 counts negative layer_indices from another list. Pass layer_names=.", MethodError)


def _entropy(case: Case) -> None:
    if case.outputs == 1:
        case.refuse("it takes the entropy of class probabilities, and the model has one output.", InputError)


def _focus(case: Case) -> None:
    given = case.setting.custom_batch
    if given is None or np.shape(given) != (len(case.inputs), 4) or not np.isin(given, [0, 1]).all():
        case.refuse(
            "it needs custom_batch, for each mosaic four numbers: 1 where the target class is (top left, top right, "
            "bottom left, bottom right), 0 elsewhere."
        )


_CHECKS: Mapping[str, Callable[[Case], None]] = {
    "Faithfulness Correlation": _correlation,
    "Monotonicity-Arya": _monotonicity,
    "Top-K Intersection": _top_k,
    "Pointing Game": _weighted,
    "Attribution Localisation": _weighted,
    "ROAD": _road,
    "Infidelity": _infidelity,
    "Continuity Test": _continuity,
    "Sufficiency": _sufficiency,
    "Random Logit": _random_logit,
    "Completeness": _completeness,
    "NonSensitivity": _non_sensitivity,
    "Relative Representation Stability": _representation,
    "Efficient MPRT": _entropy,
    "Focus": _focus,
}


def check_randomisable(label: str, model: Any) -> str:
    """What Quantus leaves as it is when it randomises a model, in words; empty if it is nothing.

    Raises:
        MethodError: It finds nothing to randomise.
    """
    changed = [module for module in model.modules() if hasattr(module, "reset_parameters")]
    reached = {id(parameter) for module in changed for parameter in module.parameters(recurse=False)}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in reached]
    if not changed:
        raise MethodError(
            f"{label}: Quantus randomises modules that have reset_parameters(), and the model has none. Give its "
            f"modules one."
        )
    return ", ".join(left)


def check_shift(label: str, shifted: Callable[[], Any], original: Callable[[], Any]) -> None:
    """Whether the model that Quantus has shifted gives for shifted inputs what the model gives for its own.

    Raises:
        MethodError: It does not, or could not be made.
    """
    advice = "It serves models that begin with a convolution without padding and with a bias."
    try:
        found = shifted()
    except (AttributeError, TypeError, IndexError, RuntimeError) as error:
        raise MethodError(f"{label}: Quantus cannot shift this model's first layer. {advice}") from error
    expected = original()
    scale = float(np.abs(expected).max()) or 1.0
    if not np.allclose(found, expected, atol=1e-3 * scale, rtol=0):
        apart = float(np.abs(found - expected).max() / scale)
        raise MethodError(
            f"{label}: the model that Quantus has shifted gives outputs that differ by a relative {apart:.1e}, so it "
            f"is another model. {advice}"
        )
