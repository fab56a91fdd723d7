"""Small random models and tokenizers, made here: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, pipeline

SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
WORDS = [*SPECIAL.values(), "a", "really", "good", "film", "##s", "bad", "is", "this", "and", "not"]
LABELS = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def make_tokenizer(**more: Any) -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    given = {**SPECIAL, "model_input_names": ["input_ids", "attention_mask"], **more}
    return PreTrainedTokenizerFast(tokenizer_object=plain, **{k: v for k, v in given.items() if v is not None})


def make_text(kind: str = "bert", tokenizer: Any = None, **params: Any) -> Any:
    """A pipeline for the classification of texts."""
    torch.manual_seed(0)
    common = {"vocab_size": len(WORDS), "pad_token_id": 0, **LABELS}
    model = {
        "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL, **common)),
        "distilbert": lambda: transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **common)
        ),
        "gpt2": lambda: transformers.GPT2ForSequenceClassification(
            transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3, **common)
        ),
    }[kind]()
    torch.nn.init.normal_(model.get_input_embeddings().weight)  # large, so that every token counts
    tokenizer = tokenizer or make_tokenizer()
    return pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, device=-1, **params)


def make_images(kind: str, processor: Any) -> Any:
    """A pipeline for the classification of images."""
    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8, **LABELS)
        model = transformers.ViTForImageClassification(config)
    else:
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABELS
        )
        model = transformers.ResNetForImageClassification(config)
    return pipeline("image-classification", model=model.eval(), image_processor=processor, device=-1)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked for elsewhere."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def text_pipeline() -> Any:
    return make_text


@pytest.fixture
def image_pipeline() -> Any:
    return make_images


@pytest.fixture
def tokenizer_of() -> Any:
    return make_tokenizer
