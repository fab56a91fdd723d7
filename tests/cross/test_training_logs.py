"""Explanations during training: the event files are read back, and the training is the same without them."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from matplotlib.image import imread
from shared_cnn import CHANNELS, HEIGHT, WIDTH, to_last
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import cfi_core as cfi
from cfi_core.training import picture_of
from cfi_tensorflow import ExplanationCallback
from cfi_torch import ExplanationLogger

_GENERATOR = np.random.default_rng(4)
IMAGES = _GENERATOR.normal(size=(16, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
LABELS = _GENERATOR.integers(0, 3, 16)
CHOSEN = slice(0, 2)

# Toolsets of both frameworks, several layers, own settings; each is a picture.
EXPLANATIONS: dict[str, Any] = {
    "saliency": {"toolset": "captum", "target": [1, 2]},
    "cam": {"method_key": "grad_cam", "toolset": "tf-keras-vis", "target": 1, "layer": ["conv1", "conv2"]},
    "tf-explain": {"method_key": "integrated_gradients", "toolset": "tf-explain", "target": 0, "defaults": "toolset"},
    "dream": {
        "method_key": "activation_maximization",
        "toolset": "tf-keras-vis",
        "layer": "conv1",
        "neuron": 2,
        "exec_args": {"input_range": (-1.0, 1.0), "steps": 3},
    },
}
TAGS = ["saliency", "cam/conv1", "cam/conv2", "tf-explain", "dream"]


def explanations(start: np.ndarray) -> dict[str, Any]:
    return {**EXPLANATIONS, "dream": {**EXPLANATIONS["dream"], "inputs": start}}


def read(folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """The pictures of an event file, by tag and step."""
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    accumulator.Reload()
    found = {}
    for tag in accumulator.Tags()["images"]:  # as torch writes them
        for event in accumulator.Images(tag):
            found[tag, event.step] = decode(event.encoded_image_string)
    for tag in accumulator.Tags()["tensors"]:  # as TensorFlow writes them: width, height, pictures
        for event in accumulator.Tensors(tag):
            _, _, encoded = event.tensor_proto.string_val
            found[tag, event.step] = decode(encoded)
    return found


def decode(encoded: bytes) -> np.ndarray:
    return np.round(imread(io.BytesIO(encoded), format="png")[..., :3] * 255).astype(np.uint8)


def expected(model: Any, inputs: Any, arguments: dict[str, Any]) -> np.ndarray:
    return picture_of(cfi.attribute(model, inputs=inputs, seed=0, **arguments))


def random_state() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()


# torch


class Net(nn.Module):
    """With batch norm and dropout, which a forward pass in training mode would change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(5 * 6 * 9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv2(torch.relu(self.norm(self.conv1(x)))))
        return self.head(self.drop(x.flatten(1)))


def train_torch(make_logger: Callable[[Net], Any] | None, epochs: int = 4) -> tuple[Net, list[Any]]:
    """The trained network, and what else it leaves: losses, the optimizer's state, random numbers."""
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    images, labels, losses = torch.tensor(IMAGES), torch.tensor(LABELS), []
    logger = make_logger(model) if make_logger else None
    for _ in range(epochs):
        for rows in torch.randperm(16).split(4):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if logger:
                logger.step()
        if logger:
            logger.epoch()
    assert model.training
    if logger:
        logger.close()
    return model, [losses, random_state(), [p.grad.numpy().tobytes() for p in model.parameters()]]


def same_weights(model: nn.Module, other: nn.Module) -> bool:
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def test_a_loop_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[ExplanationLogger] = []

    def make(model: Net) -> ExplanationLogger:
        start = np.zeros((1, CHANNELS, HEIGHT, WIDTH), np.float32)
        made.append(ExplanationLogger(model, tmp_path, IMAGES[CHOSEN], explanations(start), every_epochs=2))
        made[0].start()
        return made[0]

    logged, left = train_torch(make)
    plain, left_alone = train_torch(None)
    assert same_weights(logged, plain) and left == left_alone
    found = read(tmp_path)
    assert list(found) == [(tag, step) for tag in TAGS for step in (0, 2, 4)]
    # The last pictures are of the trained model, as anybody would draw them.
    logged.eval()
    last = expected(logged, IMAGES[CHOSEN], {"method_key": "saliency", **EXPLANATIONS["saliency"]})
    np.testing.assert_array_equal(found["saliency", 4], last)
    cam = {**EXPLANATIONS["cam"], "layer": "conv2"}
    np.testing.assert_array_equal(found["cam/conv2", 4], expected(logged, IMAGES[CHOSEN], cam))
    own = cfi.attribute(logged, inputs=IMAGES[CHOSEN], seed=0, **EXPLANATIONS["tf-explain"]).extras["picture"]
    np.testing.assert_array_equal(found["tf-explain", 4], np.stack([own] * 3, axis=-1))
    assert not np.array_equal(found["saliency", 0], found["saliency", 4])
    told = capsys.readouterr().out
    assert "Explanations: 15 pictures in 3 rounds took" in told and "% " not in told
    assert made[0].log.seconds > 0


def test_steps_and_a_writer_of_ones_own(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    one = {"saliency": EXPLANATIONS["saliency"]}
    train_torch(lambda model: ExplanationLogger(model, writer, IMAGES[CHOSEN], one, every_steps=6), epochs=3)
    writer.add_scalar("still", 1.0, 0)  # it is open
    writer.close()
    assert list(read(tmp_path)) == [("saliency", 6), ("saliency", 12)]


def test_a_block_begins_with_the_untrained_model_and_closes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExplanationLogger(
        Net().eval(), tmp_path, IMAGES[CHOSEN], {"saliency": EXPLANATIONS["saliency"]}, every_epochs=1
    ) as logger:
        logger.epoch()
    logger.close()
    assert list(read(tmp_path)) == [("saliency", 0), ("saliency", 1)]
    assert capsys.readouterr().out.count("Explanations:") == 1


def test_no_writer() -> None:
    with pytest.raises(cfi.ArgumentError, match="a folder or a SummaryWriter"):
        ExplanationLogger(Net(), 3, IMAGES, {"saliency": {"target": 0}}, every_epochs=1)


# Lightning


def fit_lightning(folder: Path | None) -> Any:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            images, labels = batch
            return nn.functional.cross_entropy(self(images), labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-2)

    torch.manual_seed(1)
    module = Module()
    data = torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    callbacks = []
    if folder:
        given: dict[str, Any] = {
            "saliency": EXPLANATIONS["saliency"],
            "cam": {**EXPLANATIONS["cam"], "layer": "net.conv2"},
        }
        logger = ExplanationLogger(module, folder, IMAGES[CHOSEN], given, every_epochs=1)
        callbacks.append(logger.as_lightning_callback())
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=2, callbacks=callbacks, enable_model_summary=False, **options)
    trainer.fit(module, loader)
    return module


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_lightning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged, plain = fit_lightning(tmp_path), fit_lightning(None)
    assert same_weights(logged, plain)
    found = read(tmp_path)
    assert list(found) == [(tag, step) for tag in ("saliency", "cam") for step in (0, 1, 2)]
    np.testing.assert_array_equal(
        found["saliency", 2],
        expected(logged.net.eval(), IMAGES[CHOSEN], {"method_key": "saliency", **EXPLANATIONS["saliency"]}),
    )
    assert "6 pictures in 3 rounds" in capsys.readouterr().out


# Keras


def keras_net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((HEIGHT, WIDTH, CHANNELS)),
            keras.layers.Conv2D(4, 3, padding="same", name="conv1"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(5, 3, strides=2, activation="relu", name="conv2"),
            keras.layers.Dropout(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def train_keras(callbacks: list[Any], fits: int = 1, **compiled: Any) -> tuple[keras.Model, list[Any]]:
    keras.utils.set_random_seed(5)
    model = keras_net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, **compiled)
    histories = [
        model.fit(to_last(IMAGES), LABELS, batch_size=4, epochs=3, verbose=0, callbacks=callbacks).history
        for _ in range(fits)
    ]
    drawn = tf.random.uniform((3,)).numpy().tobytes(), random_state()
    return model, [histories, drawn, [np.asarray(one).tobytes() for one in model.optimizer.variables]]


def test_keras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = to_last(IMAGES[CHOSEN])
    start = np.zeros((1, HEIGHT, WIDTH, CHANNELS), np.float32)
    callback = ExplanationCallback(tmp_path, chosen, explanations(start), every_epochs=3)
    logged, left = train_keras([callback])
    plain, left_alone = train_keras([])
    for one, two in zip(logged.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert left == left_alone
    found = read(tmp_path)
    assert sorted(found) == sorted((tag, step) for tag in TAGS for step in (0, 3))
    for tag in ("saliency", "tf-explain"):
        arguments = {"method_key": tag, **EXPLANATIONS[tag]}
        np.testing.assert_array_equal(found[tag, 3], expected(logged, chosen, arguments))
    assert "Explanations: 10 pictures in 2 rounds took" in capsys.readouterr().out


def test_keras_steps_and_a_second_fit(tmp_path: Path) -> None:
    one = {"saliency": {"toolset": "tf-keras-vis", "target": 1}}
    callback = ExplanationCallback(tmp_path, to_last(IMAGES[CHOSEN]), one, every_steps=5)
    train_keras([callback], fits=2, steps_per_execution=2)  # 12 steps each, two at a time
    assert sorted(step for _, step in read(tmp_path)) == [0, 6, 10, 16, 20]


@pytest.mark.parametrize("name", ["cfi_torch", "cfi_tensorflow"])
def test_a_package_has_no_other_name(name: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Logger'"):
        __import__(name).Logger  # noqa: B018


def test_without_tensorboard_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    given: dict[str, Any] = {"explanations": {"saliency": {"target": 0}}, "every_epochs": 1}
    with pytest.raises(ImportError, match=r"pip install 'cfi-torch\[tensorboard\]'"):
        ExplanationLogger(Net(), tmp_path, IMAGES, **given)
    with pytest.raises(ImportError, match=r"pip install 'cfi-tensorflow\[tensorboard\]'"):
        ExplanationCallback(tmp_path, IMAGES, **given)
