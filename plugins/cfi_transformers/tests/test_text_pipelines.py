"""Pipelines of texts: their tokenizer runs, and what comes home is what captum gives for the model inside by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, LayerIntegratedGradients

import cfi_core as cfi

TEXTS = ["this film is really good", "bad films"]
TOKENS = (
    ("[CLS]", "this", "film", "is", "really", "good", "[SEP]"),
    ("[CLS]", "bad", "film", "##s", "[SEP]", "[PAD]", "[PAD]"),
)


def by_hand(pipe, explainer, *more, **arguments):
    given = pipe.tokenizer(TEXTS, padding=True, return_tensors="pt")

    def scores(ids, mask):
        return pipe.model(input_ids=ids, attention_mask=mask).logits

    mask = (given["attention_mask"],)
    found = explainer(scores, *more).attribute(given["input_ids"], target=1, additional_forward_args=mask, **arguments)
    return found.detach().numpy(), given["input_ids"]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_tokens_of_texts_of_unequal_length(text_pipeline, kind):
    pipe = text_pipeline(kind)
    found = cfi.attribute(pipe, "feature_ablation", "captum", inputs=TEXTS, target="dog", baselines="mask")
    np.testing.assert_allclose(found.values, by_hand(pipe, FeatureAblation, baselines=4)[0], rtol=1e-6, atol=1e-8)
    assert found.feature_names == TOKENS and found.dims == ("sample", "token")
    assert found.provenance["classes"] == ("dog",)
    told = found.provenance["preparation"]
    assert "made 7, 5 tokens" in told and "values are on the tokens" in told


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_integrated_gradients_from_padding_that_keeps_the_frame(text_pipeline, kind):
    pipe = text_pipeline(kind)
    baseline = cfi.TokenBaseline("pad", keep="special")
    found = cfi.attribute(pipe, "integrated_gradients", "captum", inputs=TEXTS, target="dog", baselines=baseline)
    ids = pipe.tokenizer(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    start = torch.where((ids == 2) | (ids == 3), ids, 0)
    own, _ = by_hand(pipe, LayerIntegratedGradients, pipe.model.get_input_embeddings(), baselines=start)
    np.testing.assert_allclose(found.values, own, rtol=1e-5, atol=1e-8)
    assert found.dims == ("sample", "token", "embedding") and found.sum("embedding").values.shape == (2, 7)
    assert (found.values[ids.numpy() > 4] != 0).any(1).all()
    assert not found.values[((ids == 2) | (ids == 3)).numpy()].any()


def test_one_text_and_pairs(text_pipeline):
    pipe = text_pipeline()
    one = cfi.attribute(pipe, "saliency", "captum", inputs=TEXTS[0], target="predicted")
    assert one.values.shape == (1, 7, 16)
    pair = {"text": "good film", "text_pair": "bad film"}
    for given in (pair, [pair], [("good film", "bad film")]):
        found = cfi.attribute(pipe, "feature_ablation", "captum", inputs=given, target=0, baselines="unk")
        assert found.feature_names[0] == ("[CLS]", "good", "film", "[SEP]", "bad", "film", "[SEP]")


def test_token_types_go_along(text_pipeline, tokenizer_of):
    pipe = text_pipeline(tokenizer=tokenizer_of(model_input_names=["input_ids", "token_type_ids", "attention_mask"]))
    pair = {"text": "good film", "text_pair": "bad film"}
    found = cfi.attribute(pipe, "feature_ablation", "captum", inputs=pair, target=0, baselines="mask")
    given = pipe.tokenizer(**pair, return_tensors="pt")
    full = pipe.model(**given).logits[0, 0]
    changed = given["input_ids"].clone()
    changed[0, 5] = 4
    lost = full - pipe.model(**{**given, "input_ids": changed}).logits[0, 0]
    np.testing.assert_allclose(found.values[0, 5], lost.item(), rtol=1e-4)


def test_what_is_cut_off_is_told(text_pipeline):
    pipe = text_pipeline(truncation=True, max_length=5)
    found = cfi.attribute(pipe, "saliency", "captum", inputs=TEXTS, target=0)
    assert found.values.shape[1] == 5 and "the texts 0 were truncated" in found.provenance["preparation"]


def test_inputs_by_name_are_given_to_the_model_inside(text_pipeline):
    pipe = text_pipeline()
    given = dict(pipe.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    found = cfi.attribute(pipe, "feature_ablation", "captum", inputs=given, target=1, baselines="mask")
    np.testing.assert_allclose(found.values, by_hand(pipe, FeatureAblation, baselines=4)[0], rtol=1e-6, atol=1e-8)
    assert found.feature_names == TOKENS


def test_refusals(text_pipeline, tokenizer_of):
    pipe = text_pipeline()
    for given, said in (([3], "A int is no text"), ([], "inputs is empty"), ([["a", "b", "c"]], "A list is no text")):
        with pytest.raises(cfi.InputError, match=said):
            cfi.attribute(pipe, "saliency", "captum", inputs=given, target=0)
    without = text_pipeline("gpt2", tokenizer_of(pad_token=None))
    with pytest.raises(cfi.InputError, match="no token to pad them with"):
        cfi.attribute(without, "saliency", "captum", inputs=TEXTS, target=0)
    assert cfi.attribute(without, "saliency", "captum", inputs=TEXTS[:1], target=0).values.shape == (1, 7, 16)
    pipe.__class__ = type("OtherPipeline", (type(pipe).__base__,), {})
    with pytest.raises(cfi.InputError, match="cannot be explained as a whole"):
        cfi.attribute(pipe, "saliency", "captum", inputs=TEXTS, target=0)
