"""Baselines of tokens, which stay tokens: what stands in the place of a token, and which tokens are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cfi_core.adapters import as_array, is_number
from cfi_core.errors import ArgumentError, InputError
from cfi_core.features import find_tokenizer
from cfi_core.records import Inputs, Original, Plan
from cfi_core.registry import Registry

KEPT = ("special", "padding")
"""What `TokenBaseline.keep` may hold."""

_FRAMES = ("cls", "sep", "bos", "eos")
_CONTENT = ("unk", "mask")  # special to tokenizers, but in the place of a word
_MASKS = ("attention_mask", "padding_mask", "mask", "input_mask")
_GROUPS = "feature_mask"


@dataclass(frozen=True)
class TokenBaseline:
    """What takes the place of tokens in a baseline; as `baselines`, a string alone stands for one that keeps nothing.

    Attributes:
        token: `"pad"`, `"mask"`, `"unk"` or another special token, as the tokenizer given as `feature_names` or the
            model's configuration knows it; the text of a token (with a tokenizer); or its number.
        keep: Which tokens the baseline leaves as they are, so that they are no features and have the value 0:
            `"special"` (those that begin, end and separate texts: [CLS], [SEP], bos, eos) and `"padding"` (what the
            mask beside the tokens leaves out, and the padding token).
    """

    token: str | int
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kept = (self.keep,) if isinstance(self.keep, str) else tuple(self.keep)
        if unknown := [name for name in kept if name not in KEPT]:
            raise ArgumentError(f"keep={unknown[0]!r} is neither {' nor '.join(map(repr, KEPT))}.")
        if isinstance(self.token, bool) or not isinstance(self.token, str | int | np.integer):
            raise ArgumentError(f"A TokenBaseline is made of the name, text or number of a token, not {self.token!r}.")
        object.__setattr__(self, "keep", kept)


def place_baselines(
    registry: Registry, plan: Plan, original: Original, inputs: Inputs
) -> tuple[Plan, tuple[np.ndarray | None, ...]]:
    """The plan with whole numbers in the place of named tokens, and of each input, which of its tokens are kept.

    Raises:
        ArgumentError: A token is not known by that name, or the method cannot keep tokens.
        InputError: A token, of inputs or baselines, is none of the model's vocabulary.
    """
    given = plan.arguments.baselines
    parts = given if isinstance(given, tuple) else (given,) * len(inputs.arrays)
    if len(parts) != len(inputs.arrays):
        return plan, ()  # which is refused elsewhere
    makers = [TokenBaseline(part) if isinstance(part, str) else part for part in parts]
    words = Words(_tokenizer_in(plan.arguments.feature_names), original, inputs)
    placed, kept, is_distribution = [], list[np.ndarray | None](), "baselines" in plan.method.required
    for position, (maker, tokens) in enumerate(zip(makers, inputs.arrays, strict=True)):
        of_tokens = tokens.dtype.kind in "iu" and tokens.ndim == 2
        if of_tokens and len(inputs.arrays) == 1:
            words.check(tokens, "inputs hold")
        if isinstance(maker, TokenBaseline):
            if not of_tokens:
                raise ArgumentError(
                    f"baselines={maker.token!r} is for tokens, whole numbers of shape (samples, tokens), and input "
                    f"{position} holds {tokens.dtype} of shape {tokens.shape}. Pass a number or an array."
                )
            array, keep = words.place(maker, tokens)
            placed.append(array if is_distribution else int(array[0, 0]) if keep is None else array)
            kept.append(keep)
        else:
            placed.append(_spread(registry, maker, tokens) if of_tokens and maker is not None else maker)
            kept.append(None)
        if of_tokens and placed[-1] is not None and len(inputs.arrays) == 1:
            words.check(placed[-1], "baselines hold")
    if given is None or (makers == list(parts) and all(one is other for one, other in zip(placed, parts, strict=True))):
        return plan, ()
    if is_distribution:
        placed = _of_distribution(makers, placed, plan)
    arguments = replace(plan.arguments, baselines=tuple(placed) if len(placed) > 1 else placed[0])
    return _with_groups(replace(plan, arguments=arguments), kept), tuple(kept)


def as_inputs(plan: Plan, original: Original, inputs: Inputs) -> Inputs | None:
    """The baselines in the place of the inputs, where nothing but a pass tells whether the model knows such tokens."""
    given = plan.arguments.baselines
    tokens = inputs.arrays[0]
    array = np.asarray(given) if isinstance(given, int | np.ndarray) else np.zeros(0)
    if len(inputs.arrays) > 1 or tokens.ndim != 2 or tokens.dtype.kind not in "iu" or tokens.dtype.itemsize < 4:
        return None
    if array.dtype.kind not in "iu" or not array.size or original.adapter.vocabulary(original.model) is not None:
        return None
    widest = array if array.ndim < 2 or len(array) == len(tokens) else array[:1]
    filled = np.array(np.broadcast_to(widest, tokens.shape), tokens.dtype)
    return replace(inputs, tensors=(original.adapter.tensor(filled, original.model),), arrays=(filled,))


class Words:
    """What is known of the tokens: by the tokenizer first, then by the model."""

    def __init__(self, tokenizer: Any, original: Original, inputs: Inputs) -> None:
        self._tokenizer, self._inputs = tokenizer, inputs
        self._names = original.names
        self._of_model = original.adapter.special_tokens(original.model)
        self._vocabulary = original.adapter.vocabulary(original.model)

    def place(self, maker: TokenBaseline, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """A baseline of the shape of the tokens, and which of them it keeps."""
        filled = np.full_like(tokens, self.number(maker.token))
        if not maker.keep:
            return filled, None
        keep = np.zeros(tokens.shape, bool)
        if "special" in maker.keep:
            keep |= np.isin(tokens, self._special())
        if "padding" in maker.keep:
            keep |= self._padding(tokens)
        if keep.all(1).any():
            row = int(keep.all(1).argmax())
            raise ArgumentError(f"All tokens of sample {row} would be kept, which leaves nothing to explain.")
        return np.where(keep, tokens, filled), keep

    def number(self, token: str | int) -> int:
        """A token's number.

        Raises:
            ArgumentError: Neither tokenizer nor model knows it.
        """
        if not isinstance(token, str):
            return int(token)
        known = self._by_name(token)
        if known is None:
            known = _number_in(self._tokenizer, token)
        if known is None:
            who = "The model's configuration knows" if self._tokenizer is None else "The tokenizer and the model know"
            raise ArgumentError(
                f"{who} no token {token!r}. Pass its number as baselines, or the tokenizer as feature_names."
            )
        return known

    def check(self, tokens: Any, what: str) -> None:
        """Refuses tokens that are none of the model's vocabulary, as far as its size is known."""
        array = np.asarray(tokens)
        if self._vocabulary is None or array.dtype.kind not in "iu" or not array.size:
            return
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self._vocabulary:
            raise InputError(
                f"{what} the token {low if low < 0 else high}, and the model's vocabulary goes from 0 to "
                f"{self._vocabulary - 1}: were they made by the tokenizer of this model?"
            )

    def _by_name(self, name: str) -> int | None:
        number = getattr(self._tokenizer, f"{name}_token_id", None)
        number = self._of_model.get(name) if number is None else number
        if number is None:
            spelled = (f"[{name.upper()}]", f"<{name}>", f"<|{name}|>")
            number = next((one for text in spelled if (one := _number_in(self._tokenizer, text)) is not None), None)
        return None if number is None else int(number)

    def _special(self) -> list[int]:
        own = getattr(self._tokenizer, "all_special_ids", None) or ()
        content = {self._by_name(name) for name in (*_CONTENT, "pad")}
        known = {self._by_name(name) for name in _FRAMES} | ({int(one) for one in own} - content)
        found = sorted(one for one in known if one is not None)
        if not found:
            raise ArgumentError("Which tokens are special is not known: pass the tokenizer as feature_names.")
        return found

    def _padding(self, tokens: np.ndarray) -> np.ndarray:
        held = dict(zip(self._names.held, self._inputs.held_arrays, strict=False)) if self._names else {}
        masks = [held[name] == 0 for name in _MASKS if name in held and held[name].shape == tokens.shape]
        pad = self._by_name("pad")
        if pad is None and not masks:
            raise ArgumentError(
                "What is padding is not known: pass the tokenizer as feature_names, or a mask beside the tokens."
            )
        marked = np.zeros(tokens.shape, bool) if pad is None else tokens == pad
        return np.logical_or.reduce([marked, *masks])


def _tokenizer_in(given: Any) -> Any | None:
    """The tokenizer among what was given for several inputs."""
    each = given.values() if isinstance(given, Mapping) else given if isinstance(given, tuple) else (given,)
    return next((found for one in each if (found := find_tokenizer(one)) is not None), None)


def _number_in(tokenizer: Any, text: str) -> int | None:
    """The number of a token by its text; tokenizers may give that of the unknown token instead."""
    for to_number, back in (
        ("convert_tokens_to_ids", "convert_ids_to_tokens"),
        ("token_to_id", "id_to_token"),
        ("piece_to_id", "id_to_piece"),
    ):
        if hasattr(tokenizer, to_number):
            try:
                number = getattr(tokenizer, to_number)(text)
                return number if number is not None and getattr(tokenizer, back)(number) == text else None
            except Exception:  # noqa: BLE001 - tokenizers of any library refuse in their own way
                return None
    return None


def _spread(registry: Registry, given: Any, tokens: np.ndarray) -> Any:
    """One number for each sample as an array of the shape of the tokens; all else as it is."""
    if is_number(given):
        return given.item() if isinstance(given, np.generic) else given
    array = as_array(registry, given, "baselines")
    each = (len(tokens), 1)
    if array.shape == each or (array.shape == each[:1] and each[:1] != tokens.shape[1:]):
        return np.broadcast_to(array.reshape(each), tokens.shape)
    return given


def _of_distribution(makers: Sequence[Any], placed: Sequence[Any], plan: Plan) -> list[Any]:
    """Of a method that compares each sample with all baselines: one for all, or a row for each sample (`is_apart`)."""
    made = [isinstance(maker, TokenBaseline) for maker in makers]
    if all((one == one[:1]).all() for one, by_name in zip(placed, made, strict=True) if by_name):
        return [one[:1] if by_name else one for one, by_name in zip(placed, made, strict=True)]
    if any(not by_name and not is_number(one) for one, by_name in zip(placed, made, strict=True)):
        raise ArgumentError(
            f"{plan.method.key} compares every sample with all baselines, and tokens that are kept differ from sample "
            f"to sample, while another input has baselines of its own. Pass a number there, or keep nothing."
        )
    return list(placed)


def _with_groups(plan: Plan, kept: Sequence[np.ndarray | None]) -> Plan:
    """Where the method takes groups of features: such as leave no feature for what is kept.

    A kept token shares the number of one that is explained, and does not change with it.
    """
    own: Mapping[str, Any] = plan.arguments.exec_args or {}
    (keep, *others) = kept
    if keep is None or others or _GROUPS not in plan.method.exec_args or own.get(_GROUPS) is not None:
        return plan
    groups = np.where(keep, 0, np.cumsum(~keep, axis=1) - 1)
    return replace(plan, arguments=replace(plan.arguments, exec_args={**own, _GROUPS: groups}))
