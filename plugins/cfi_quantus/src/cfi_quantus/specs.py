"""Quantus's metrics as data: what each measures, needs, takes and cites, and where its definition asks for care.

The names are the keys of `quantus.AVAILABLE_METRICS`; classes, categories and directions are compared with Quantus in a
test. Importing this imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from cfi_core.errors import ArgumentError
from cfi_core.specs import MetricSpec, Need

IMPLEMENTATION = "cfi_quantus.evaluation:evaluate"
REQUIREMENTS = ("quantus>=0.6,<0.7", "torch>=2.13", "xarray>=2024.7")


class Model(StrEnum):
    """What a metric does with the model."""

    NOTHING = "nothing"
    RUNS = "runs it"
    READS_MODULES = "reads its modules"
    CHANGES_WEIGHTS = "randomises copies of it"
    SHIFTS_INPUTS = "changes the first layer of copies of it"

    @property
    def is_opened(self) -> bool:
        """Whether it does something with the model's modules."""
        return self not in (Model.NOTHING, Model.RUNS)


class Scores(StrEnum):
    """What the scores of one explanation are, besides one per sample."""

    SAMPLES = "samples"
    CURVE = "a curve per sample"
    STEPS = "one per step, over all samples"
    PERCENTAGES = "one per percentage, over all samples"
    LAYERS = "one per layer and sample"


@dataclass(frozen=True, kw_only=True)
class QuantusMetric:
    """One metric of Quantus.

    Attributes:
        name: As Quantus lists it.
        class_name: In `quantus`.
        category: As Quantus has it.
        better: `"higher"` or `"lower"`.
        citation: The paper.
        model: What it does with the model.
        explains: It explains again.
        images: It is defined on images only: two spatial axes.
        masks: It needs to know where the object is.
        scores: What it gives.
        compares_samples: A score depends on all samples together, which are therefore one batch.
        single_samples: It measures one sample at a time: in larger batches it mixes them.
        compares_outputs: Though it explains again, the outputs themselves are part of the score.
        makes_first: It makes the explanations of the user's own model itself.
        hint: What helps where Quantus fails.
        aliases: Further names of it.
    """

    name: str
    class_name: str
    category: str
    better: str
    citation: str
    model: Model = Model.RUNS
    explains: bool = False
    images: bool = False
    masks: bool = False
    scores: Scores = Scores.SAMPLES
    compares_samples: bool = False
    single_samples: bool = False
    compares_outputs: bool = False
    makes_first: bool = False
    hint: str = "Check its arguments."
    aliases: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[Need]:
        """What it requires of the model."""
        if self.model.is_opened:
            return frozenset({Need.FORWARD, Need.MODULES})
        return frozenset({Need.FORWARD} if self.model is Model.RUNS else ())

    @property
    def spec(self) -> MetricSpec:
        """What core knows of it."""
        return MetricSpec(
            name=self.name,
            library="quantus",
            category=self.category,
            better=self.better,
            needs=self.needs,
            implementation=IMPLEMENTATION,
            explains=self.explains,
            requirements=REQUIREMENTS,
            citation=self.citation,
        )


def _faithfulness() -> Iterator[QuantusMetric]:
    def metric(name: str, class_name: str, better: str, citation: str, **more: Any) -> QuantusMetric:
        return QuantusMetric(
            name=name, class_name=class_name, category="Faithfulness", better=better, citation=citation, **more
        )

    yield metric(
        "Faithfulness Correlation",
        "FaithfulnessCorrelation",
        "higher",
        "Bhatt et al. 2020, Evaluating and Aggregating Feature-based Model Explanations",
    )
    yield metric(
        "Faithfulness Estimate",
        "FaithfulnessEstimate",
        "higher",
        "Alvarez-Melis and Jaakkola 2018, Towards Robust Interpretability with Self-Explaining Neural Networks",
    )
    yield metric(
        "Pixel-Flipping",
        "PixelFlipping",
        "lower",
        "Bach et al. 2015, On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
        "Propagation",
        scores=Scores.CURVE,
    )
    yield metric(
        "Region Segmentation",
        "RegionPerturbation",
        "higher",  # the drop of the output; Quantus marks it as lower
        "Samek et al. 2017, Evaluating the Visualization of What a Deep Neural Network Has Learned",
        images=True,
        scores=Scores.CURVE,
        aliases=("Region-Perturbation",),
    )
    yield metric(
        "Monotonicity-Arya",
        "Monotonicity",
        "higher",
        "Arya et al. 2019, One Explanation Does Not Fit All",
    )
    yield metric(
        "Monotonicity-Nguyen",
        "MonotonicityCorrelation",
        "higher",
        "Nguyen and Martínez 2020, On Quantitative Aspects of Model Interpretability",
        hint="If some outputs are smaller than eps and others not, pass batch_size=1.",
    )
    yield metric(
        "Selectivity",
        "Selectivity",
        "lower",
        "Montavon et al. 2018, Methods for Interpreting and Understanding Deep Neural Networks",
        images=True,
        scores=Scores.CURVE,
    )
    yield metric(
        "SensitivityN",
        "SensitivityN",
        "higher",
        "Ancona et al. 2018, Towards Better Understanding of Gradient-Based Attribution Methods",
        scores=Scores.STEPS,
        compares_samples=True,
    )
    yield metric(
        "IROF",
        "IROF",
        "higher",
        "Rieger and Hansen 2020, IROF: A Low Resource Evaluation Metric for Explanation Methods",
        images=True,
        single_samples=True,  # in larger batches the mean of all of them replaces a segment
        hint="A picture of one segment has none to compare: pass segmentation_method='felzenszwalb'.",
    )
    yield metric(
        "ROAD",
        "ROAD",
        "lower",
        "Rong et al. 2022, A Consistent and Efficient Evaluation Strategy for Attribution Methods",
        images=True,
        scores=Scores.PERCENTAGES,
        compares_samples=True,
    )
    yield metric(
        "Infidelity",
        "Infidelity",
        "lower",
        "Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations",
        images=True,
    )
    yield metric(
        "Sufficiency",
        "Sufficiency",
        "higher",
        "Dasgupta et al. 2022, Framework for Evaluating Faithfulness of Local Explanations",
        compares_samples=True,
    )


def _robustness() -> Iterator[QuantusMetric]:
    def metric(name: str, class_name: str, citation: str, **more: Any) -> QuantusMetric:
        fields: dict[str, Any] = {"better": "lower", "explains": True, **more}
        return QuantusMetric(name=name, class_name=class_name, category="Robustness", citation=citation, **fields)

    yield metric(
        "Continuity Test",
        "Continuity",
        "Montavon et al. 2018, Methods for Interpreting and Understanding Deep Neural Networks",
        images=True,
    )
    yield metric(
        "Local Lipschitz Estimate",
        "LocalLipschitzEstimate",
        "Alvarez-Melis and Jaakkola 2018, On the Robustness of Interpretability Methods",
    )
    yeh = "Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations"
    yield metric("Max-Sensitivity", "MaxSensitivity", yeh)
    yield metric("Avg-Sensitivity", "AvgSensitivity", yeh)
    yield metric(
        "Consistency",
        "Consistency",
        "Dasgupta et al. 2022, Framework for Evaluating Faithfulness of Local Explanations",
        better="higher",
        explains=False,
        compares_samples=True,
    )
    agarwal = "Agarwal et al. 2022, Rethinking Stability for Attribution-based Explanations"
    yield metric("Relative Input Stability", "RelativeInputStability", agarwal)
    yield metric("Relative Output Stability", "RelativeOutputStability", agarwal, compares_outputs=True)
    yield metric(
        "Relative Representation Stability",
        "RelativeRepresentationStability",
        agarwal,
        model=Model.READS_MODULES,
        hint="A layer whose output is no tensor cannot be read: pass layer_names=.",
    )


def _localisation() -> Iterator[QuantusMetric]:
    def metric(name: str, class_name: str, citation: str, **more: Any) -> QuantusMetric:
        fields: dict[str, Any] = {"better": "higher", "model": Model.NOTHING, "masks": True, **more}
        return QuantusMetric(name=name, class_name=class_name, category="Localisation", citation=citation, **fields)

    yield metric("Pointing Game", "PointingGame", "Zhang et al. 2018, Top-Down Neural Attention by Excitation Backprop")
    yield metric(
        "Top-K Intersection", "TopKIntersection", "Theiner et al. 2021, Interpretable Semantic Photo Geolocation"
    )
    arras = "Arras et al. 2022, CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of Explanations"
    yield metric("Relevance Mass Accuracy", "RelevanceMassAccuracy", arras)
    yield metric("Relevance Rank Accuracy", "RelevanceRankAccuracy", arras)
    yield metric(
        "Attribution Localisation",
        "AttributionLocalisation",
        "Kohlbrenner et al. 2020, Towards Best Practice in Explaining Neural Network Decisions with LRP",
    )
    yield metric("AUC", "AUC", "Fawcett 2006, An Introduction to ROC Analysis")
    yield metric(
        "Focus",
        "Focus",
        "Arias-Duart et al. 2022, Focus! Rating XAI Methods and Finding Biases",
        images=True,
        masks=False,
    )


def _complexity() -> Iterator[QuantusMetric]:
    def metric(name: str, class_name: str, better: str, citation: str) -> QuantusMetric:
        return QuantusMetric(
            name=name,
            class_name=class_name,
            category="Complexity",
            better=better,
            citation=citation,
            model=Model.NOTHING,
        )

    yield metric(
        "Sparseness",
        "Sparseness",
        "higher",
        "Chalasani et al. 2020, Concise Explanations of Neural Networks Using Adversarial Training",
    )
    yield metric(
        "Complexity",
        "Complexity",
        "lower",
        "Bhatt et al. 2020, Evaluating and Aggregating Feature-based Model Explanations",
    )
    yield metric(
        "Effective Complexity",
        "EffectiveComplexity",
        "lower",
        "Nguyen and Martínez 2020, On Quantitative Aspects of Model Interpretability",
    )


def _randomisation() -> Iterator[QuantusMetric]:
    def metric(name: str, class_name: str, citation: str, **more: Any) -> QuantusMetric:
        fields: dict[str, Any] = {"better": "lower", "model": Model.CHANGES_WEIGHTS, "explains": True, **more}
        return QuantusMetric(name=name, class_name=class_name, category="Randomisation", citation=citation, **fields)

    hedstroem = "Hedström et al. 2023, Sanity Checks Revisited"
    yield metric(
        "MPRT",
        "MPRT",
        "Adebayo et al. 2018, Sanity Checks for Saliency Maps",
        scores=Scores.LAYERS,
        aliases=("ModelParameterRandomisation", "Model Parameter Randomisation Test"),
    )
    # It compares smooth explanations with each other.
    yield metric("Smooth MPRT", "SmoothMPRT", hedstroem, scores=Scores.LAYERS, makes_first=True)
    entropies = "Entropies need probabilities: leave softmax out."
    yield metric("Efficient MPRT", "EfficientMPRT", hedstroem, better="higher", hint=entropies)
    yield metric(
        "Random Logit",
        "RandomLogit",
        "Sixt et al. 2020, When Explanations Lie: Why Many Modified BP Attributions Fail",
        model=Model.RUNS,
    )


def _axiomatic() -> Iterator[QuantusMetric]:
    def metric(name: str, class_name: str, better: str, citation: str, **more: Any) -> QuantusMetric:
        return QuantusMetric(
            name=name, class_name=class_name, category="Axiomatic", better=better, citation=citation, **more
        )

    yield metric(
        "Completeness", "Completeness", "higher", "Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks"
    )
    yield metric(
        "NonSensitivity",
        "NonSensitivity",
        "lower",
        "Nguyen and Martínez 2020, On Quantitative Aspects of Model Interpretability",
    )
    yield metric(
        "InputInvariance",
        "InputInvariance",
        "higher",
        "Kindermans et al. 2019, The (Un)reliability of Saliency Methods",
        model=Model.SHIFTS_INPUTS,
        explains=True,
    )


METRICS: tuple[QuantusMetric, ...] = (
    *_faithfulness(),
    *_robustness(),
    *_localisation(),
    *_complexity(),
    *_randomisation(),
    *_axiomatic(),
)


def find_metric(name: object) -> QuantusMetric:
    """The metric that goes by a name: Quantus's name of it or its class, whatever case and separators are.

    Raises:
        ArgumentError: There is none; names the nearest.
    """
    known = {_plain(alias): one for one in METRICS for alias in (one.name, one.class_name, *one.aliases)}
    if isinstance(name, str) and _plain(name) in known:
        return known[_plain(name)]
    near = [known[match].name for match in get_close_matches(_plain(str(name)), known, n=3, cutoff=0.5)]
    hint = f"Nearest: {', '.join(dict.fromkeys(near))}." if near else "cfi_quantus.metrics() lists all."
    raise ArgumentError(f"Quantus has no metric {name!r}. {hint}")


def _plain(name: str) -> str:
    return re.sub(r"\W|_", "", name).lower()
