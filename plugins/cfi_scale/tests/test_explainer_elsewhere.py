"""An explainer as it is, in Ray Data's `map_batches` and in tasks of Ray and dask: a Keras model under Captum."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import cfi_core as cfi

pytestmark = pytest.mark.faults  # real clusters, and frameworks loaded in each of their processes


@pytest.fixture(scope="module")
def keras():
    """Loaded in the order in which torch and TensorFlow get on."""
    from cfi_core.coexistence import load_safely

    load_safely()
    pytest.importorskip("captum")
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def model(keras):
    """A CNN for images `(12, 10, 3)`, five classes."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((12, 10, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(5)]
    )


@pytest.fixture(scope="module")
def images():
    """`(120, 12, 10, 3)`."""
    return np.random.default_rng(0).random((120, 12, 10, 3), dtype="float32")


@pytest.fixture(scope="module")
def cluster_of_ray():
    """Of this machine."""
    ray = pytest.importorskip("ray")
    importable = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": importable})
    yield ray
    ray.shutdown()


def by_hand(model, images, targets):
    """TensorFlow's own gradient of the targets' outputs."""
    import tensorflow as tf

    rows = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        chosen = tf.gather(model(rows), targets, batch_dims=1)
    return tape.gradient(chosen, rows).numpy()


def test_a_class_in_map_batches(cluster_of_ray, model, images):
    pytest.importorskip("pyarrow")
    rows = [{"image": image, "label": number % 5} for number, image in enumerate(images)]
    found = cluster_of_ray.data.from_items(rows).map_batches(
        cfi.Explainer,
        fn_constructor_args=(model, "saliency", "captum"),
        fn_constructor_kwargs={"columns": {"inputs": "image", "target": "label"}},
        batch_size=32,
        concurrency=2,
    )
    found = found.take_all()
    assert len(found) == 120 and set(found[0]) == {"image", "label", "attribution"}
    seen, labels, values = (np.stack([row[name] for row in found]) for name in ("image", "label", "attribution"))
    np.testing.assert_allclose(values, by_hand(model, seen, labels), rtol=1e-4, atol=1e-6)


def test_the_recipe_of_the_page(cluster_of_ray, model, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[3] / "docs" / "scale.md"
    (recipe,) = re.findall(r"### Ray datasets.*?```python\n(.*?)```", page.read_text(), re.DOTALL)
    made = {"model": model, "images": images, "np": np, "cfi": cfi, "ray": cluster_of_ray}
    made |= {"cfi_scale": __import__("cfi_scale"), "explainer": cfi.Explainer(model, "saliency", "captum", target=0)}
    exec(compile(recipe, "recipe", "exec"), made)
    np.testing.assert_allclose(
        made["found"].attribution, by_hand(model, images, np.zeros(120, int)), rtol=1e-4, atol=1e-6
    )
    values = {row["data"].tobytes(): row["attribution"] for row in made["rows"]}
    best = np.asarray(model(images)).argmax(1)
    held = np.stack([values[image.tobytes()] for image in images])
    np.testing.assert_allclose(held, by_hand(model, images, best), rtol=1e-4, atol=1e-6)


def test_in_a_task_of_ray(cluster_of_ray, model, images):
    explainer = cfi.Explainer(model, "saliency", "captum", target=3)
    task = cluster_of_ray.remote(lambda explain, batch: explain(batch))
    found = cluster_of_ray.get(task.remote(explainer, images[:8]))
    assert isinstance(found, cfi.Attribution) and found.dims == ("sample", "height", "width", "channel")
    np.testing.assert_allclose(found.values, by_hand(model, images[:8], np.full(8, 3)), rtol=1e-4, atol=1e-6)


def test_in_tasks_of_dask(model, images):
    distributed = pytest.importorskip("distributed")
    explainer = cfi.Explainer(model, "saliency", "captum")
    batches = np.split(images, 4)
    targets = [np.arange(30) % 5] * 4
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        found = client.gather(client.map(explainer, batches, targets))
        kept = client.scatter(explainer, broadcast=True)
        again = client.submit(lambda explain, batch: explain(batch, 2).values, kept, batches[0]).result()
    values = np.concatenate([one.values for one in found])
    np.testing.assert_allclose(values, by_hand(model, images, np.arange(120) % 5), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again, by_hand(model, batches[0], np.full(30, 2)), rtol=1e-4, atol=1e-6)
