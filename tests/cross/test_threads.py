"""Calls from several threads: side by side, to the bits of the serial ones, and without a trace on each other."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import torch
from method_arguments import BASELINES, CAPTUM, in_keras_order
from mixed_calls import MIXED, Noisy, explain, in_process, models
from process_state import assert_same, keras_state, process_state, torch_state
from shared_cnn import Twins, keras_twin

import cfi_core as cfi

WAIT = 20
"""Seconds after which a test gives up on threads that wait for each other."""


@pytest.fixture(autouse=True)
def _one_thread_for_each_operation() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def together(*tasks: Callable[[], Any]) -> list[Any]:
    """Results of functions that run in a thread each; fails where they do not end."""
    results: dict[int, Any] = {}
    start = threading.Barrier(len(tasks))

    def work(place: int) -> None:
        start.wait(WAIT)
        try:
            results[place] = tasks[place]()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            results[place] = error

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(results) == len(tasks), "threads wait for each other"
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[place] for place in range(len(tasks))]


@pytest.mark.filterwarnings("ignore::cfi_core.errors.CFIWarning")
@pytest.mark.parametrize("shared", [False, True], ids=["models of their own", "one model"])
def test_mixed_calls_of_eight_threads_give_the_bits_of_serial_ones(twins: Twins, shared: bool) -> None:
    one = models(twins)
    of_thread = [one if shared else models(twins) for _ in range(8)]
    work = [[(which, 100 * thread + which) for which in range(len(MIXED))] for thread in range(8)]
    for thread, jobs in enumerate(work):
        random.Random(thread).shuffle(jobs)
    serial = [[explain(twins, of_thread[t], *job) for job in work[t][:9]] for t in range(8)]
    states = [(torch_state(each["torch"]), keras_state(each["keras"])) for each in of_thread]
    process = process_state()

    def task(thread: int) -> Callable[[], list[np.ndarray]]:
        return lambda: [explain(twins, of_thread[thread], *job) for job in work[thread][:9]]

    parallel = together(*map(task, range(8)))
    assert_same(process, process_state())
    for (of_torch, of_keras), each in zip(states, of_thread, strict=True):
        assert_same(of_torch, torch_state(each["torch"]))
        assert_same(of_keras, keras_state(each["keras"]))
    for thread in range(8):
        for job, expected, values in zip(work[thread], serial[thread], parallel[thread], strict=False):
            np.testing.assert_array_equal(values, expected, str(MIXED[job[0]][:3]))


@pytest.mark.parametrize("key", ["gradient_shap", "noise_tunnel", "lime", "kernel_shap", "shapley_value_sampling"])
def test_draws_do_not_disturb_another_thread(twins: Twins, key: str) -> None:
    """The user's other thread draws from the global generators all the time."""
    done, wrong = threading.Event(), []

    def explain_often() -> None:
        for seed in range(4):
            cfi.attribute(twins.torch_model, key, "captum", inputs=twins.first, seed=seed, **CAPTUM[key])
        done.set()

    def draw() -> None:
        while not done.is_set():
            np.random.seed(3)
            torch.manual_seed(3)
            random.seed(3)
            drawn = [(np.random.random(), float(torch.rand(())), random.random()) for _ in range(50)]
            wrong.extend([] if drawn == expected else [drawn])

    state, of_torch, of_python = np.random.get_state(), torch.get_rng_state(), random.getstate()
    try:
        np.random.seed(3)
        torch.manual_seed(3)
        random.seed(3)
        expected = [(np.random.random(), float(torch.rand(())), random.random()) for _ in range(50)]
        together(explain_often, draw)
    finally:
        np.random.set_state(state)
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
    assert not wrong


def test_what_another_thread_saves_and_restores_is_the_users(twins: Twins) -> None:
    """A thread that saves the state in the middle of a call and restores it afterwards brings nothing of CFI's back."""
    inside, ended = threading.Event(), threading.Event()
    before = process_state()

    def target(outputs: torch.Tensor) -> torch.Tensor:
        inside.set()
        assert saved.wait(WAIT)
        return outputs[:, 1]

    saved = threading.Event()

    def call() -> None:
        given = {"inputs": twins.first, "target": target, "baselines": BASELINES, "seed": 1}
        cfi.attribute(twins.torch_model, "gradient_shap", "captum", **given)
        ended.set()

    def bystander() -> None:
        assert inside.wait(WAIT)
        states = np.random.get_state(), torch.get_rng_state(), random.getstate()
        saved.set()
        assert ended.wait(WAIT)
        np.random.set_state(states[0])
        torch.set_rng_state(states[1])
        random.setstate(states[2])

    together(call, bystander)
    assert_same(before, process_state())


@pytest.mark.filterwarnings("ignore::cfi_core.errors.CFIWarning")
@pytest.mark.parametrize("key", ["saliency", "lime", "gradient_shap"])
@pytest.mark.parametrize("model", ["torch", "random", "keras"])
@pytest.mark.parametrize("other", ["torch", "conversion", "random"])
def test_a_target_may_wait_for_a_call_of_another_thread(twins: Twins, key: str, model: str, other: str) -> None:
    """Also where that call needs to itself what this one uses or has."""
    waiting = models(twins)
    others = models(twins)
    results: list[Any] = []
    route: dict[str, Any] = {"toolset": "tf-keras-vis", "translator": "conversion"} if other == "conversion" else {}

    def call_elsewhere() -> None:
        explained = others["random" if other == "random" else "torch"]
        route.setdefault("toolset", "captum")
        results.append(cfi.attribute(explained, "saliency", inputs=twins.first, target=0, **route))

    def target(outputs: torch.Tensor) -> torch.Tensor:
        if not results:
            thread = threading.Thread(target=call_elsewhere, daemon=True)
            thread.start()
            thread.join(WAIT)
            assert results, "the call waits for the one whose target waits for it"
        return outputs[:, 1]

    arguments = {**CAPTUM[key], "target": target}
    if model == "keras":
        arguments = in_keras_order(arguments)
    inputs = twins.last if model == "keras" else twins.first
    (made,) = together(lambda: cfi.attribute(waiting[model], key, "captum", inputs=inputs, seed=2, **arguments))
    assert made.values.any() and len(results) == 1


def test_a_score_of_tf_keras_vis_may_wait_too(twins: Twins) -> None:
    keras_model, results = keras_twin(twins.torch_model), []

    def score(outputs: Any) -> Any:
        if not results:
            call = lambda: cfi.attribute(keras_model, "grad_cam", inputs=twins.last, target=0, **where)  # noqa: E731
            thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
            thread.start()
            thread.join(WAIT)
            assert results
        return outputs[:, 1]

    where: dict[str, Any] = {"toolset": "tf-keras-vis", "layer": "conv2"}
    given = {"inputs": twins.last, "exec_args": {"score": score}, **where}
    (made,) = together(lambda: cfi.attribute(keras_model, "grad_cam", **given))
    assert made.values.any() and len(results) == 1


def test_two_calls_on_one_torch_model_are_inside_at_the_same_time(twins: Twins) -> None:
    both = threading.Barrier(2)

    def target(outputs: torch.Tensor) -> torch.Tensor:
        both.wait(WAIT)
        return outputs[:, 1]

    def layer_reached(*_: Any) -> None:
        if threading.current_thread() not in seen:
            seen.append(threading.current_thread())
            inside.wait(WAIT)

    inside, seen = threading.Barrier(2), []
    handle = twins.torch_model.conv2.register_forward_pre_hook(layer_reached)
    call = lambda: cfi.attribute(twins.torch_model, "saliency", "captum", inputs=twins.first, target=target)  # noqa: E731
    try:
        made = together(call, call)
    finally:
        handle.remove()
    np.testing.assert_array_equal(made[0].values, made[1].values)


@pytest.mark.filterwarnings("ignore::cfi_core.errors.CFIWarning")
def test_a_model_that_draws_is_seeded_and_leaves_no_trace(twins: Twins) -> None:
    model, before = Noisy(twins.torch_model).eval(), process_state()
    first, again, other = (
        cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=1, seed=seed).values for seed in (1, 1, 2)
    )
    assert_same(before, process_state())
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.filterwarnings("ignore::cfi_core.errors.CFIWarning")
def test_a_call_inside_a_call_has_numbers_of_its_own(twins: Twins) -> None:
    """A hook of a model that draws explains another one."""
    model, other, before = Noisy(twins.torch_model).eval(), Noisy(copy.deepcopy(twins.torch_model)).eval(), []
    call = lambda explained: cfi.attribute(explained, "lime", inputs=twins.first, seed=1, **CAPTUM["lime"]).values  # noqa: E731
    alone = call(model)
    process = process_state()

    def explain_other(*_: Any) -> None:
        if len(before) < 3:
            before.append(1)
            call(other)

    handle = model.register_forward_pre_hook(explain_other)
    try:
        np.testing.assert_array_equal(call(model), alone)
    finally:
        handle.remove()
    assert_same(process, process_state())


def test_calls_in_a_thread_of_asyncio(twins: Twins) -> None:
    call = lambda seed: cfi.attribute(twins.torch_model, "lime", inputs=twins.first, seed=seed, **CAPTUM["lime"])  # noqa: E731

    async def all_at_once() -> Sequence[Any]:
        return await asyncio.gather(*(asyncio.to_thread(call, seed) for seed in range(4)))

    for seed, made in enumerate(asyncio.run(all_at_once())):
        np.testing.assert_array_equal(made.values, call(seed).values)


def test_calls_in_spawned_processes(twins: Twins) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        made = pool.submit(in_process, 5).result(6 * WAIT)
    np.testing.assert_array_equal(made, explain(twins, models(twins), 2, 5))


@pytest.mark.filterwarnings("ignore::cfi_core.errors.CFIWarning")
def test_interrupted_calls_let_others_go_on(twins: Twins) -> None:
    model = Noisy(twins.torch_model).eval()

    def target(_: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    before = process_state()
    with pytest.raises(KeyboardInterrupt):
        cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=target)
    assert_same(before, process_state())
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: cfi.attribute(model, "saliency", "captum", inputs=twins.first, target=1, seed=1))
        assert call.result(WAIT).values.any()  # type: ignore[union-attr]


def test_layers_of_keras_keep_their_calls(twins: Twins) -> None:
    model: keras.Model = keras_twin(twins.torch_model)
    before = keras_state(model)
    call = lambda: cfi.attribute(model, "grad_cam", "captum", inputs=twins.last, target=1, layer="conv2")  # noqa: E731
    made = together(*[call] * 4)
    assert_same(before, keras_state(model))
    for one in made:
        np.testing.assert_array_equal(one.values, made[0].values)
