"""The methods that cover parts of the image: RISE, and extremal perturbations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfi_core.contract import Axes, MethodRequest, MethodResult, Sampling, Target
from cfi_core.errors import ArgumentError
from cfi_core.framework import rows_at_once
from cfi_core.progress import steps as expect
from cfi_core.silence import without_warnings
from cfi_core.specs import resolve
from cfi_torchray.explained import Explained, check_inputs, class_indices, failures, with_own_parameters
from cfi_torchray.library import private_copy, utils
from cfi_torchray.plugin import WORKAROUNDS
from cfi_torchray.workarounds import contrastive_reward, mask_generator

_VARIANTS = ("preserve", "delete", "dual")
_PERTURBATIONS = ("blur", "fade")
_RISE = {"num_masks": 8000, "num_cells": 7, "batch_size": 32, "p": 0.5}
_EXTREMAL: dict[str, Any] = {
    "areas": (0.1,),
    "perturbation": "blur",
    "max_iter": 800,
    "num_levels": 8,
    "step": 7,
    "sigma": 21,
    "jitter": True,
    "variant": "preserve",
}


def run_rise(request: MethodRequest) -> MethodResult:
    """Runs `rise`.

    Returns:
        One map for each sample, of the target; `extras["all_classes"]`, if asked for, those of all classes,
        `(samples, classes, height, width)`.

    Raises:
        ArgumentError: An argument does not fit (also InputError, TargetError).
        MethodError: TorchRay failed.
    """
    check_inputs(request, images=True)
    call = {**_RISE, **request.exec_args}
    if call.get("filter_masks") is not None:
        call["filter_masks"] = torch.as_tensor(
            call["filter_masks"], dtype=torch.float32, device=request.inputs[0].device
        )
    _check_rise(call, request.inputs[0].shape)
    explained = Explained(request, whole=bool(call["all_classes"]), single=True)
    index = None if request.target is None else request.target.index
    if call["all_classes"]:
        columns = list(class_indices(request)) if index else [0] * len(request.inputs[0])
    else:
        columns = _shared_columns(request, explained)
    seed = request.seed if call.get("seed") is None else int(call["seed"])
    heard = _Torch(seed, samples=len(request.inputs[0]), sigmoid=bool(call["sigmoid"]))
    library = private_copy("rise", torch=heard)
    masks = call.get("filter_masks")
    number = len(masks) if masks is not None else call["num_masks"]
    expect(number + 1, "masks", share=len(request.inputs[0]))
    most = rows_at_once([request.inputs[0].shape], 1, limit=request.rows)
    with torch.inference_mode(False), failures("rise"):
        maps = library.rise(
            partial(_in_portions, explained, most),
            explained.input_of(request),
            num_masks=number,
            num_cells=call["num_cells"],
            filter_masks=masks,
            batch_size=call["batch_size"],
            p=call["p"],
        )
    errors = heard.errors(maps, number)
    if call["divide_by_p"]:
        maps, errors = maps / call["p"], errors / call["p"]
    chosen = torch.arange(len(maps)), torch.tensor(columns)
    values, sampling = maps[chosen], Sampling((errors[chosen],), number, "num_masks")
    extras = {"all_classes": maps.detach().cpu().numpy()} if call["all_classes"] else {}
    applied = {"function": "torchray.attribution.rise.rise", "seed": seed, **{name: call[name] for name in _RISE}}
    applied |= {name: call[name] for name in ("sigmoid", "divide_by_p", "all_classes")} | {"num_masks": number}
    applied["filter_masks"] = masks is not None
    return MethodResult((values,), Axes.INPUT_MAP, extras, applied, sampling=sampling)


def _in_portions(explained: Explained, most: int, rows: Tensor) -> Tensor:
    """What the model gives for masked images, some at a time: how many of them are drawn at once decides the draws."""
    return torch.cat([explained(some) for some in rows.split(most)])


def _check_rise(call: dict[str, Any], shape: Sequence[int]) -> None:
    for name in ("num_masks", "num_cells", "batch_size"):
        if not isinstance(call[name], int) or call[name] < 1:
            raise ArgumentError(f"{name}={call[name]!r} must be a whole number of at least 1.")
    if call["num_cells"] < 2:
        raise ArgumentError("num_cells=1: a mask of one cell covers everything or nothing. Take 2 or more.")
    if not 0 < call["p"] <= 1:
        raise ArgumentError(f"p={call['p']!r} is the part of the cells that stay visible: more than 0, at most 1.")
    if call["resize"] not in (True, False):
        raise ArgumentError("RISE gives maps of the input's size: leave resize out.")
    masks = call.get("filter_masks")
    if masks is not None and (masks.dim() != 4 or masks.shape[1] != 1 or set(masks.shape[2:]) - set(shape[1:])):
        raise ArgumentError("filter_masks must be an array of shape (masks, 1, height, width).")


def _shared_columns(request: MethodRequest, explained: Explained) -> list[int]:
    """Lets the model give only the classes that are explained, and says which of these columns is each sample's."""
    target, samples = request.target, len(request.inputs[0])
    if target is None or target.index is None or not target.per_sample:
        return [0] * samples
    found = class_indices(request)
    explained.columns = tuple(dict.fromkeys(found))
    return [explained.columns.index(one) for one in found]


class _Torch:
    """Stands for torch in a copy of TorchRay's `rise`, which draws from the global generators and seeds them."""

    def __init__(self, seed: int, *, samples: int, sigmoid: bool) -> None:
        self._seed = seed
        self._squares: list[Any] = [0.0] * samples
        self._products = 0
        self._sigmoid = sigmoid
        self._generators: dict[torch.device, torch.Generator] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def manual_seed(self, seed: int) -> None:
        """The generators of this run are seeded already."""

    def get_rng_state(self) -> None:
        """There is nothing to put back."""

    def set_rng_state(self, state: None) -> None:
        """There is nothing to put back."""

    def sigmoid(self, scores: Tensor) -> Tensor:
        """What TorchRay makes of the model's outputs, which the paper does not."""
        return torch.sigmoid(scores) if self._sigmoid else scores

    def matmul(self, scores: Tensor, masks: Tensor) -> Tensor:
        """The sum of masks times scores, sample by sample, and for oneself that of the squares of these products."""
        sample = self._products % len(self._squares)
        self._products += 1
        self._squares[sample] = self._squares[sample] + torch.matmul(scores.double() ** 2, masks.double() ** 2)
        return torch.matmul(scores, masks)

    def errors(self, maps: Tensor, number: int) -> Tensor:
        """The standard errors of the means over so many masks."""
        squares = torch.stack(self._squares).reshape(maps.shape) / number
        if number < 2:
            return torch.full_like(maps, torch.inf)
        return ((squares - maps.double() ** 2).clamp(min=0) / (number - 1)).sqrt().to(maps)

    def rand(self, *size: int, device: Any) -> Tensor:
        """Uniform numbers from the generator of the run."""
        return torch.rand(*size, device=device, generator=self._generator(device))

    def randint(self, low: int, high: int, size: Any, device: Any) -> Tensor:
        """Whole numbers from the generator of the run."""
        return torch.randint(low, high, size, device=device, generator=self._generator(device))

    def _generator(self, device: Any) -> torch.Generator:
        device = torch.device(device)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def run_extremal(request: MethodRequest) -> MethodResult:
    """Runs `extremal_perturbation`, one sample after the other.

    Returns:
        One mask for each sample, the mean of those of all areas; `extras["masks"]` those of each area,
        `(samples, areas, height, width)`, `extras["areas"]` what they really cover, `(samples, areas)`, and
        `extras["energy"]` reward and regularisation of each step, `(samples, areas, 2, steps)`.

    Raises:
        ArgumentError: An argument does not fit (also InputError, TargetError).
        MethodError: TorchRay failed.
    """
    check_inputs(request, images=True)
    call = {**_EXTREMAL, **request.exec_args}
    areas = _areas(call["areas"])
    _check_extremal(call)
    request = with_own_parameters(request)
    mend = bool(request.init_args[WORKAROUNDS])
    library = private_copy("extremal_perturbation")
    if mend:
        vars(library)["MaskGenerator"] = mask_generator(library.MaskGenerator)
    reward = _reward(call.get("reward_func"), library, mend)
    rows = len(areas) * (2 if call["variant"] == "dual" else 1)
    expect(call["max_iter"] * len(request.inputs[0]), "steps", share=rows)
    found = [_mask(request, sample, library, call, areas, reward) for sample in range(len(request.inputs[0]))]
    masks = torch.stack([mask for mask, _ in found])
    extras = {
        "masks": _numpy(masks),
        "areas": _numpy(masks.mean((2, 3))),
        "energy": np.stack([_numpy(energy) for _, energy in found]),
    }
    applied: dict[str, Any] = {"function": "torchray.attribution.extremal_perturbation.extremal_perturbation"}
    applied |= {name: call[name] for name in _EXTREMAL} | {"areas": areas, "smooth": call["smooth"]}
    applied |= {"reward_func": getattr(reward, "__qualname__", type(reward).__qualname__), WORKAROUNDS: mend}
    applied["values"] = "the mask" if len(areas) == 1 else "the mean of the masks of all areas"
    return MethodResult((masks.mean(1),), Axes.INPUT_MAP, extras, applied)


def _mask(
    request: MethodRequest,
    sample: int,
    library: ModuleType,
    call: dict[str, Any],
    areas: tuple[float, ...],
    reward: Callable[..., Tensor],
) -> tuple[Tensor, Tensor]:
    """The masks of one sample, one for each area, and their energies."""
    alone = replace(request, inputs=(request.inputs[0][sample : sample + 1],), target=_target_of(request, sample))
    compares = reward is not library.simple_reward
    explained = Explained(alone, whole=compares, single=True)
    target = class_indices(alone)[0] if compares else 0
    options = {name: call[name] for name in _EXTREMAL if name != "areas"}
    with ExitStack() as stack:
        for one in (torch.inference_mode(False), torch.enable_grad(), without_warnings("torch.meshgrid")):
            stack.enter_context(one)
        stack.enter_context(failures(request.method.key))
        masks, energy = library.extremal_perturbation(
            explained, explained.input_of(alone), target, areas=list(areas), reward_func=reward, **options
        )
        if call["smooth"]:
            masks = utils.imsmooth(masks, call["smooth"] * min(masks.shape[2:]), padding_mode="constant")
    return masks.detach()[:, 0], energy


def _target_of(request: MethodRequest, sample: int) -> Target | None:
    target = request.target
    if target is None or not target.per_sample:
        return target
    return replace(target, index=target.indices(len(request.inputs[0]))[sample])


def _areas(areas: Any) -> tuple[float, ...]:
    found = (areas,) if isinstance(areas, (int, float)) else tuple(areas)
    if not found or not all(isinstance(area, (int, float)) and 0 < area < 1 for area in found):
        raise ArgumentError(f"areas={areas!r} must be parts of the image, each more than 0 and less than 1.")
    return tuple(map(float, found))


def _check_extremal(call: dict[str, Any]) -> None:
    for name, known in (("variant", _VARIANTS), ("perturbation", _PERTURBATIONS)):
        if call[name] not in known:
            raise ArgumentError(f"{name}={call[name]!r} is unknown. Choose one of {', '.join(map(repr, known))}.")
    for name, least in (("max_iter", 1), ("num_levels", 2), ("step", 1)):
        if not isinstance(call[name], int) or call[name] < least:
            raise ArgumentError(f"{name}={call[name]!r} must be a whole number of at least {least}.")
    if call["sigma"] <= 0:
        raise ArgumentError(f"sigma={call['sigma']!r} is the width of the smoothing in pixels: more than 0.")
    if call["resize"] not in (True, False):
        raise ArgumentError("Extremal perturbations are masks of the input's size: leave resize out.")


def _reward(chosen: Any, library: ModuleType, mend: bool) -> Callable[..., Tensor]:
    """The reward that a user named or gave; TorchRay's own contrastive one mixes areas."""
    if isinstance(chosen, str) and ":" in chosen:
        chosen = resolve(chosen)
    name = chosen if isinstance(chosen, str) else getattr(chosen, "__name__", "") if chosen is not None else "simple"
    of_torchray = isinstance(chosen, str) or getattr(chosen, "__module__", "") == library.__name__
    if chosen is None or (of_torchray and name in ("simple", "simple_reward")):
        return library.simple_reward
    if of_torchray and name in ("contrastive", "contrastive_reward"):
        return contrastive_reward if mend else library.contrastive_reward
    if not callable(chosen):
        raise ArgumentError(f"reward_func={chosen!r} is unknown. Choose 'simple', 'contrastive', or pass a function.")
    return chosen


def _numpy(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
