"""Hugging Face pipelines: a call from text or pictures to labels, with the preprocessing inside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, row, seed
from model_rows.transformers_text import BERT_NAMES, SMALL, TEXTS, Embedded, logit, tokenizer
from model_rows.transformers_vision import HEIGHT, WIDTH, Pixels, pictures


def text_classifier() -> Any:
    """A pipeline around a small BERT."""
    from transformers import BertConfig, BertForSequenceClassification, TextClassificationPipeline

    seed()
    labels = {0: "bad", 1: "fair", 2: "good"}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, id2label=labels, **SMALL)).eval()
    return TextClassificationPipeline(model=model, tokenizer=tokenizer(*BERT_NAMES))


@row("pipeline: text classification", "transformers")
def text() -> Iterable[Call]:
    pipeline, texts = text_classifier(), TEXTS
    enc = pipeline.tokenizer(texts, padding=True, return_tensors="pt")
    hand = Embedded(pipeline.model, enc, logit(2))
    return [
        answer(
            lambda: cfi.attribute(
                pipeline, "integrated_gradients", "captum", inputs=texts, target="good", exec_args={"n_steps": 8}
            ),
            lambda: hand.integrated()["input_ids"],
        ),
        answer(
            lambda: cfi.attribute(pipeline, "saliency", "tf-keras-vis", inputs=texts, target="good"),
            lambda: hand.gradient()["input_ids"],
        ),
        answer(
            lambda: cfi.attribute(pipeline, "feature_ablation", inputs=texts, target="good", baselines="mask"),
            lambda: hand.ablated(4)["input_ids"],
        ),
    ]


@row("pipeline: image classification", "transformers")
def image() -> Iterable[Call]:
    from PIL import Image
    from transformers import ImageClassificationPipeline, ViTConfig, ViTForImageClassification, ViTImageProcessor

    seed()
    sizes = {**SMALL, "image_size": (HEIGHT, WIDTH), "patch_size": 8, "num_labels": 5}
    model = ViTForImageClassification(ViTConfig(**sizes)).eval()
    processor = ViTImageProcessor(size={"height": HEIGHT, "width": WIDTH})
    pipeline = ImageClassificationPipeline(model=model, image_processor=processor)
    photos = [Image.fromarray(picture) for picture in pictures(2 * HEIGHT, 2 * WIDTH)]
    hand = Pixels(model, processor(photos, return_tensors="pt"), logit(2))
    return [
        answer(
            lambda: cfi.attribute(pipeline, "input_x_gradient", "captum", inputs=photos, target="LABEL_2"),
            lambda: on_photos(hand.times_gradient()["pixel_values"]),
        ),
        answer(
            lambda: cfi.attribute(pipeline, "saliency", "tf-keras-vis", inputs=photos, target="LABEL_2"),
            lambda: on_photos(hand.gradient()["pixel_values"]),
        ),
    ]


def on_photos(values: np.ndarray) -> np.ndarray:
    """Each pixel of the model was made of four of the photo, which share its value; channels last."""
    return values.repeat(2, 2).repeat(2, 3).transpose(0, 2, 3, 1) / 4
