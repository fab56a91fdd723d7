"""Models of tables and texts that have outputs alone, or trees: boosters, scikit-learn, what is exported of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import cfi_core as cfi
from model_rows.frame import Call, answer, refusal, row, seed
from model_rows.hands import Predict, ablation, shapley, torch_gradient

BACKGROUND = np.random.default_rng(9).normal(size=(5, 5)).astype(np.float32)
SMOOTH = "trees are steps: their derivative is zero wherever it exists"
OUTPUTS = "it hands out its outputs alone"


def table(columns: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Rows and their classes, of which there are three."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(120, columns)).astype(np.float32)
    return rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int) + (rows[:, 3] > 0.5)


def outputs_calls(model: Any, rows: np.ndarray, predict: Predict, target: Any = 1) -> list[Call]:
    """A model with outputs alone, by captum and by SHAP."""
    start = np.full_like(rows[:1], 0.25)
    return [
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=rows, target=target, baselines=0.25),
            lambda: ablation(predict, rows, 0.25),
        ),
        answer(
            lambda: cfi.attribute(model, "kernel_shap", "shap", inputs=rows, target=target, baselines=start),
            lambda: shapley(predict, rows, start),
        ),
    ]


def no_gradient(model: Any, rows: np.ndarray, target: Any = 1, law: str = SMOOTH) -> Call:
    """It cannot be differentiated."""
    return refusal(lambda: cfi.attribute(model, "saliency", "captum", inputs=rows, target=target), cfi.RouteError, law)


def tree_call(model: Any, rows: np.ndarray, predict: Predict, head: str | None = "logit") -> Call:
    """SHAP's explainer of trees: what they add up to, against the mean over a background."""
    some = BACKGROUND
    return answer(
        lambda: cfi.attribute(model, "tree_shap", inputs=rows, target=1, baselines=some, head=head),
        lambda: np.mean([shapley(predict, rows, one[None]) for one in some], 0),
    )


@row("XGBoost: XGBClassifier", "xgboost")
def xgb_classifier() -> Iterable[Call]:
    from xgboost import XGBClassifier

    rows, classes = table()
    model = XGBClassifier(n_estimators=8, max_depth=3).fit(rows, classes)
    some = rows[:3]
    return [
        *outputs_calls(model, some, lambda x: model.predict_proba(x)[:, 1]),
        tree_call(model, some, lambda x: model.predict(x, output_margin=True)[:, 1]),
        no_gradient(model, some),
    ]


@row("XGBoost: Booster", "xgboost")
def xgb_booster() -> Iterable[Call]:
    import xgboost

    rows, classes = table()
    settings = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3}
    model = xgboost.train(settings, xgboost.DMatrix(rows, classes), num_boost_round=8)
    some = rows[:3]
    return [
        *outputs_calls(model, some, lambda x: model.inplace_predict(x)[:, 1]),
        no_gradient(model, some),
    ]


@row("LightGBM: LGBMClassifier", "lightgbm")
def lgbm_classifier() -> Iterable[Call]:
    from lightgbm import LGBMClassifier

    rows, classes = table()
    model = LGBMClassifier(n_estimators=8, num_leaves=5, verbose=-1).fit(rows, classes)
    some = rows[:3]
    return [
        *outputs_calls(model, some, lambda x: model.predict_proba(x)[:, 1]),
        tree_call(model, some, lambda x: model.predict(x, raw_score=True)[:, 1]),
        no_gradient(model, some),
    ]


@row("LightGBM: Booster", "lightgbm")
def lgbm_booster() -> Iterable[Call]:
    import lightgbm

    rows, classes = table()
    settings = {"objective": "multiclass", "num_class": 3, "num_leaves": 5, "verbose": -1}
    model = lightgbm.train(settings, lightgbm.Dataset(rows, classes), num_boost_round=8)
    some = rows[:3]
    return [
        *outputs_calls(model, some, lambda x: model.predict(x)[:, 1]),
        no_gradient(model, some),
    ]


@row("CatBoost: CatBoostClassifier", "catboost")
def cat_classifier() -> Iterable[Call]:
    from catboost import CatBoostClassifier

    rows, classes = table()
    model = CatBoostClassifier(iterations=8, depth=3, verbose=0, allow_writing_files=False).fit(rows, classes)
    some = rows[:3]
    return [*outputs_calls(model, some, lambda x: model.predict_proba(x)[:, 1]), no_gradient(model, some)]


@row("CatBoost: CatBoost, a regressor", "catboost")
def cat_booster() -> Iterable[Call]:
    from catboost import CatBoost

    rows, classes = table()
    settings = {"iterations": 8, "depth": 3, "verbose": 0, "allow_writing_files": False, "loss_function": "RMSE"}
    model = CatBoost(settings).fit(rows, classes.astype(float))
    some = rows[:3]
    return [*outputs_calls(model, some, model.predict, target=None), no_gradient(model, some, target=None)]


def frame() -> tuple[Any, np.ndarray]:
    """Rows with two columns of numbers and two of categories."""
    import pandas

    generator = np.random.default_rng(1)
    colours, sizes = np.array(["red", "green", "blue"]), np.array(["small", "large"])
    rows = pandas.DataFrame(
        {
            "age": generator.normal(40, 10, 120),
            "colour": colours[generator.integers(0, 3, 120)],
            "income": generator.normal(2, 1, 120),
            "size": sizes[generator.integers(0, 2, 120)],
        }
    )
    return rows, np.where((rows["colour"] == "red") ^ (rows["income"] > 2), "yes", "no")


BASELINES = {"age": 40.0, "colour": "green", "income": 2.0, "size": "small"}


def column_ablation(predict: Callable[[Any], np.ndarray], rows: Any) -> np.ndarray:
    """What each column adds."""
    whole = predict(rows)
    return np.stack([whole - predict(rows.assign(**{name: value})) for name, value in BASELINES.items()], 1)


def column_shapley(predict: Callable[[Any], np.ndarray], rows: Any) -> np.ndarray:
    """Shapley values of the columns by their definition: each is its own value or its baseline."""

    def of_choices(chosen: np.ndarray) -> np.ndarray:
        taken = rows.copy()
        for place, (name, value) in enumerate(BASELINES.items()):
            taken[name] = np.where(chosen[:, place] > 0, rows[name], value)
        return predict(taken)

    return shapley(of_choices, np.ones(rows.shape), np.zeros((1, rows.shape[1])))


def frame_calls(model: Any, rows: Any, predict: Callable[[Any], np.ndarray], target: Any = "yes") -> list[Call]:
    """A model of a table with categories."""
    start = BASELINES
    return [
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=rows, target=target, baselines=start),
            lambda: column_ablation(predict, rows),
        ),
        answer(
            lambda: cfi.attribute(model, "shapley_values", "captum", inputs=rows, target=target, baselines=start),
            lambda: column_shapley(predict, rows),
        ),
        answer(
            lambda: cfi.attribute(model, "kernel_shap", "shap", inputs=rows, target=target, baselines=start),
            lambda: column_shapley(predict, rows),
        ),
    ]


@row("CatBoost: CatBoostClassifier of a DataFrame with categories", "catboost")
def cat_categories() -> Iterable[Call]:
    from catboost import CatBoostClassifier

    rows, classes = frame()
    settings = {"iterations": 8, "depth": 3, "verbose": 0, "allow_writing_files": False}
    model = CatBoostClassifier(cat_features=["colour", "size"], **settings).fit(rows, classes)
    return frame_calls(model, rows[:3], lambda x: model.predict_proba(x)[:, 1])


@row("XGBoost: XGBClassifier of a DataFrame with categories", "xgboost")
def xgb_categories() -> Iterable[Call]:
    from xgboost import XGBClassifier

    rows, classes = frame()
    rows = rows.astype({"colour": "category", "size": "category"})
    model = XGBClassifier(n_estimators=8, max_depth=3, enable_categorical=True).fit(rows, classes == "yes")
    kinds = rows.dtypes.to_dict()
    return frame_calls(model, rows[:3], lambda x: model.predict_proba(x.astype(kinds))[:, 1], target=1)


@row("LightGBM: LGBMClassifier of a DataFrame with categories", "lightgbm")
def lgbm_categories() -> Iterable[Call]:
    from lightgbm import LGBMClassifier

    rows, classes = frame()
    rows = rows.astype({"colour": "category", "size": "category"})
    model = LGBMClassifier(n_estimators=8, num_leaves=5, verbose=-1).fit(rows, classes)
    kinds = rows.dtypes.to_dict()
    return frame_calls(model, rows[:3], lambda x: model.predict_proba(x.astype(kinds))[:, 1])


@row("scikit-learn: a pipeline with categories", quick=True)
def pipeline_categories() -> Iterable[Call]:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows, classes = frame()
    columns = make_column_transformer((OneHotEncoder(), ["colour", "size"]), (StandardScaler(), ["age", "income"]))
    model = make_pipeline(columns, LogisticRegression()).fit(rows, classes)
    return frame_calls(model, rows[:3], lambda x: model.predict_proba(x)[:, 1])


@row("scikit-learn: HistGradientBoosting with categories", quick=True)
def histogram_categories() -> Iterable[Call]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, classes = frame()
    rows = rows.astype({"colour": "category", "size": "category"})
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=8).fit(rows, classes)
    kinds = rows.dtypes.to_dict()
    return frame_calls(model, rows[:3], lambda x: model.predict_proba(x.astype(kinds))[:, 1])


@row("scikit-learn: a pipeline of numbers", quick=True)
def pipeline_numbers() -> Iterable[Call]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows, classes = table()
    model = make_pipeline(StandardScaler(), SVC(decision_function_shape="ovr")).fit(rows, classes)
    some = rows[:3]
    return [
        *outputs_calls(model, some, lambda x: model.decision_function(x)[:, 1]),
        no_gradient(model, some, law=OUTPUTS),
    ]


@row("scikit-learn: RandomForestClassifier", quick=True)
def forest() -> Iterable[Call]:
    from sklearn.ensemble import RandomForestClassifier

    rows, classes = table()
    model = RandomForestClassifier(8, max_depth=3, random_state=0).fit(rows, classes)
    some = rows[:3]
    return [
        *outputs_calls(model, some, lambda x: model.predict_proba(x)[:, 1]),
        tree_call(model, some, lambda x: model.predict_proba(x)[:, 1], head=None),
    ]


@row("scikit-learn: a pipeline of text", quick=True)
def pipeline_text() -> Iterable[Call]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = ["a very good film", "a very bad film", "good and never dull", "bad and dull"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["pro", "contra", "pro", "contra"])
    some = ["never a good film", "a dull film"]

    def by_hand() -> np.ndarray:
        predict = lambda text: model.predict_proba([text])[0, 1]  # noqa: E731 - of one text
        values = np.zeros((2, 4))
        for place, text in enumerate(some):
            words = text.split()
            for word in range(len(words)):
                values[place, word] = predict(text) - predict(" ".join(words[:word] + words[word + 1 :]))
        return values

    return [
        answer(lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=some, target="pro"), by_hand),
    ]


@row("pytorch-tabnet: TabNetClassifier", "pytorch_tabnet")
def tabnet() -> Iterable[Call]:
    import torch
    from pytorch_tabnet.tab_model import TabNetClassifier

    seed()
    rows, classes = table()
    classifier = TabNetClassifier(n_d=4, n_a=4, n_steps=2, verbose=0, seed=0, device_name="cpu")
    classifier.fit(rows, classes, max_epochs=2, batch_size=64, virtual_batch_size=32)
    model, some = classifier.network.eval(), rows[:3]
    score = lambda x: model(x)[0][:, 1]  # noqa: E731 - the score of two calls
    return [
        answer(
            lambda: cfi.attribute(model, "input_x_gradient", "captum", inputs=some, target=(0, 1)),
            lambda: some * torch_gradient(score, some),
        ),
        answer(
            lambda: cfi.attribute(model, "saliency", "tf-keras-vis", inputs=some, target=(0, 1)),
            lambda: torch_gradient(score, some),
        ),
        answer(
            lambda: cfi.attribute(classifier, "feature_ablation", "captum", inputs=some, target=1),
            lambda: ablation(lambda x: classifier.predict_proba(x)[:, 1], some),
        ),
        answer(
            lambda: cfi.attribute(model, "feature_ablation", "captum", inputs=some, target=(0, 1)),
            lambda: ablation(lambda x: score(torch.as_tensor(x)).detach().numpy(), some),
        ),
    ]


def exported(zip_map: bool) -> tuple[Any, np.ndarray, Any]:
    """A classifier of scikit-learn as ONNX, rows, and the classifier."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows, classes = table()
    classifier = LogisticRegression().fit(rows, classes)
    options = {id(classifier): {"zipmap": zip_map}}
    return to_onnx(classifier, rows[:1], options=options, target_opset=18), rows[:3], classifier


@row("skl2onnx: labels and probabilities", "skl2onnx")
def skl2onnx_plain() -> Iterable[Call]:
    model, some, classifier = exported(zip_map=False)
    return outputs_calls(model, some, lambda x: classifier.predict_proba(x)[:, 1], target=1)


@row("skl2onnx: ZipMap, a sequence of dicts", "skl2onnx")
def skl2onnx_zip_map() -> Iterable[Call]:
    model, some, classifier = exported(zip_map=True)
    return outputs_calls(model, some, lambda x: classifier.predict_proba(x)[:, 1], target=1)


@row("skl2onnx: in a session of ONNX Runtime", "skl2onnx")
def skl2onnx_session() -> Iterable[Call]:
    from onnxruntime import InferenceSession

    proto, some, classifier = exported(zip_map=False)
    model = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return outputs_calls(model, some, lambda x: classifier.predict_proba(x)[:, 1], target=1)


@row("ONNX: a file, and a session of ONNX Runtime", quick=True)
def onnx_file() -> Iterable[Call]:
    import torch
    from onnxruntime import InferenceSession

    from model_rows.torch_wrappers import IMAGES, QUADRANTS, by_ablation, by_gradient, cnn

    original, images = cnn(), IMAGES
    folder = tempfile.TemporaryDirectory()
    path = str(Path(folder.name) / "model.onnx")
    names = {"input_names": ["images"], "dynamic_axes": {"images": {0: "samples"}}}
    torch.onnx.export(original, (torch.tensor(images),), path, dynamo=False, **names)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    session.folder = folder  # which is kept as long as the row
    mask = {"feature_mask": QUADRANTS}
    return [
        answer(
            lambda: cfi.attribute(path, "input_x_gradient", "captum", inputs=images, target=[1, 3]),
            lambda: images * by_gradient(original),
        ),
        answer(
            lambda: cfi.attribute(path, "saliency", "tf-keras-vis", inputs=images, target=[1, 3]),
            lambda: by_gradient(original),
        ),
        answer(
            lambda: cfi.attribute(session, "feature_ablation", "captum", inputs=images, target=[1, 3], exec_args=mask),
            lambda: by_ablation(original),
        ),
        refusal(
            lambda: cfi.attribute(session, "saliency", "captum", inputs=images, target=[1, 3]), cfi.RouteError, OUTPUTS
        ),
    ]


@row("a function of numpy arrays", quick=True)
def numpy_function() -> Iterable[Call]:
    rows, weights = table()[0][:3], np.random.default_rng(5).normal(size=(5, 3)).astype(np.float32)

    def model(rows: np.ndarray) -> np.ndarray:
        return np.tanh(rows @ weights)

    return [*outputs_calls(model, rows, lambda x: model(x)[:, 1]), no_gradient(model, rows, law=OUTPUTS)]
