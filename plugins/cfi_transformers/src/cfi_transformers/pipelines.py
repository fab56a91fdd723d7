"""Pipelines without their preparation: the model inside, and what tokenizer or image processor make of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from transformers import ImageClassificationPipeline, Pipeline, TextClassificationPipeline
from transformers.pipelines.base import pad_collate_fn

from cfi_core.contract import Unpacked
from cfi_core.errors import InputError
from cfi_transformers.pictures import Pictures, as_pictures, as_pil

_SCORES = "the scores that are explained are the model's own, before the pipeline applies a function to them"


def unpack(pipeline: Pipeline, inputs: Any) -> Unpacked:
    """The model inside a pipeline for the classification of texts or images, and what the pipeline gives to it.

    Inputs by the model's own names are given to it as they are.

    Raises:
        InputError: The pipeline has another task, or its preparation refuses the inputs.
    """
    if inputs is None or (isinstance(inputs, Mapping) and "text" not in inputs):
        did = "the inputs were given to the model inside the pipeline as they are"
        return Unpacked(pipeline.model, inputs, did, _names(pipeline, inputs))
    if isinstance(pipeline, TextClassificationPipeline):
        return _of_texts(pipeline, inputs)
    if isinstance(pipeline, ImageClassificationPipeline):
        return _of_pictures(pipeline, inputs)
    raise InputError(
        f"Pipelines for {pipeline.task!r} cannot be explained as a whole; those for the classification of texts and "
        f"images can. Pass pipeline.model, with inputs= by the names of its forward pass (what its tokenizer gives)."
    )


def _names(pipeline: Pipeline, inputs: Any) -> Any:
    ids = isinstance(inputs, Mapping) and "input_ids" in inputs
    return {"input_ids": pipeline.tokenizer} if ids and pipeline.tokenizer is not None else None


def _of_texts(pipeline: Pipeline, inputs: Any) -> Unpacked:
    texts = [_as_text(one) for one in (inputs if isinstance(inputs, list | tuple) else _listed(inputs))]
    if not texts:
        raise InputError("inputs is empty. Pass a text, or a list of texts.")
    encodings = [dict(pipeline.preprocess(text, **pipeline._preprocess_params)) for text in texts]
    given = _collate(pipeline, encodings)
    if "use_cache" in signature(pipeline.model.forward).parameters:
        given["use_cache"] = False  # as the pipeline does
    lengths = [encoding["input_ids"].shape[1] for encoding in encodings]
    did = [f"{type(pipeline.tokenizer).__name__} made {', '.join(map(str, lengths))} tokens of the texts"]
    if cut := _truncated(pipeline, texts, lengths):
        did.append(f"the texts {', '.join(map(str, cut))} were truncated")
    return Unpacked(
        model=pipeline.model,
        inputs=given,
        did="; ".join([*did, _SCORES]),
        feature_names={"input_ids": pipeline.tokenizer},
        stays="values are on the tokens",
    )


def _listed(inputs: Any) -> Sequence[Any]:
    """One text (or pair), or the entries of an array or a column of a table."""
    return [inputs] if isinstance(inputs, str | Mapping) else list(inputs)


def _as_text(one: Any) -> Any:
    """A text, or a pair as the pipeline takes it."""
    if isinstance(one, str):
        return str(one)
    if isinstance(one, Mapping) and {"text"} <= set(one) <= {"text", "text_pair"}:
        return dict(one)
    if isinstance(one, list | tuple) and len(one) == 2 and all(isinstance(part, str) for part in one):
        return {"text": one[0], "text_pair": one[1]}
    raise InputError(
        f"A {type(one).__name__} is no text. Pass a list of strings, of pairs of strings, or of "
        f"{{'text': …, 'text_pair': …}}."
    )


def _collate(pipeline: Pipeline, encodings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The texts in one batch, the shorter ones padded as the pipeline does."""
    first = encodings[0]
    if all(encoding[name].shape == first[name].shape for encoding in encodings for name in first):
        return {name: torch.cat([encoding[name] for encoding in encodings]) for name in first}
    if pipeline.tokenizer.pad_token_id is None:
        raise InputError(
            "The texts have different lengths, and the tokenizer has no token to pad them with. Set one "
            "(pipeline.tokenizer.pad_token = pipeline.tokenizer.eos_token, and pipeline.model.config.pad_token_id), "
            "or explain one text at a time."
        )
    padded = pad_collate_fn(pipeline.tokenizer, None)(encodings)
    return {name: padded[name] for name in first}


def _truncated(pipeline: Pipeline, texts: Sequence[Any], lengths: Sequence[int]) -> list[int]:
    """Which of the texts have more tokens than the pipeline takes."""
    params = {**pipeline._preprocess_params}
    if not params.get("truncation"):
        return []
    whole = {**params, "truncation": False, "padding": False, "max_length": None}
    given = [text if isinstance(text, dict) else {"text": text} for text in texts]
    counts = [len(pipeline.tokenizer(**text, **whole)["input_ids"]) for text in given]
    return [place for place, (count, length) in enumerate(zip(counts, lengths, strict=True)) if count > length]


def _of_pictures(pipeline: Pipeline, inputs: Any) -> Unpacked:
    images = as_pictures(inputs)

    def prepare(image: Any) -> dict[str, torch.Tensor]:
        return dict(pipeline.preprocess(as_pil(image), **pipeline._preprocess_params))

    made = [prepare(image) for image in images]
    shapes = {one["pixel_values"].shape for one in made}
    if len(shapes) > 1:
        listed = ", ".join(str(tuple(shape[1:])) for shape in shapes)
        raise InputError(f"The pipeline makes pictures of different sizes of these ({listed}): explain one at a time.")
    pictures = Pictures(images, lambda image: prepare(image)["pixel_values"][0].float().numpy())
    processor = type(pipeline.image_processor).__name__
    return Unpacked(
        model=pipeline.model,
        inputs={name: torch.cat([one[name] for one in made]) for name in made[0]},
        did=f"{processor} made pictures of shape {tuple(shapes.pop()[1:])}, {pictures.found}; {_SCORES}",
        home=pictures.bring_home if pictures.frames else None,
        stays="values are on the pixels that the model was given",
        shown=pictures.shown,
    )
