"""A table of rents with categories, a text, a date and missing values, explained column by column by two toolsets.

    python examples/table_columns.py [FOLDER]

The flats are made up, so that what drives the rent is known: size, district, a balcony that the advertisement mentions.
A pipeline of scikit-learn is trained on them. Captum's Shapley values and SHAP's KernelExplainer then explain three
flats against a typical one, and have to agree. It needs cfi-captum, cfi-shap, cfi-bridge, scikit-learn and pandas, and
takes about half a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

import cfi_core as cfi

DISTRICTS = {"old town": 4.0, "harbour": 3.0, "station": 0.0, "hills": 2.0}
ADVERTISEMENTS = ["sunny, with balcony", "quiet, by the park", "balcony to the yard", "newly painted"]


def make_flats(count: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Flats and their monthly rents."""
    draw = np.random.default_rng(0)
    flats = pd.DataFrame(
        {
            "square_metres": draw.normal(70, 22, count).clip(18).round(),
            "district": pd.Categorical(draw.choice(list(DISTRICTS), count)),
            "advertisement": draw.choice(ADVERTISEMENTS, count),
            "renovated": pd.Timestamp("1990-01-01") + pd.to_timedelta(draw.integers(0, 12000, count), unit="D"),
            "pets": draw.random(count) < 0.5,
        }
    )
    price = 9 + flats["district"].map(DISTRICTS).astype(float) + (flats["renovated"].dt.year > 2010) * 2
    balcony = flats["advertisement"].str.contains("balcony") * 80
    rents = flats["square_metres"] * price + balcony + draw.normal(0, 20, count)
    flats.loc[draw.random(count) < 0.2, "renovated"] = pd.NaT  # not known
    return flats, rents.to_numpy()


def as_years(dates: pd.DataFrame) -> np.ndarray:
    """The year of each date, with NaN where there is none."""
    return dates.apply(lambda column: column.dt.year).to_numpy(float)


def train(flats: pd.DataFrame, rents: np.ndarray) -> object:
    """Boosted trees behind encoders for each kind of column."""
    encode = make_column_transformer(
        (OrdinalEncoder(), ["district"]),
        (CountVectorizer(), "advertisement"),
        (FunctionTransformer(as_years), ["renovated"]),
        ("passthrough", ["square_metres", "pets"]),
        sparse_threshold=0,
    )
    return make_pipeline(encode, HistGradientBoostingRegressor(random_state=0)).fit(flats, rents)


def main(folder: Path) -> None:
    """Explains three flats, compares the toolsets, and draws them."""
    flats, rents = make_flats(600)
    model, some = train(flats, rents), flats.tail(3)
    typical = {
        "square_metres": 70.0,
        "district": "station",
        "advertisement": "",
        "renovated": pd.Timestamp("2000-01-01"),
        "pets": False,
    }
    by_captum = cfi.attribute(model, "shapley_values", "captum", inputs=some, baselines=typical)
    by_shap = cfi.attribute(model, "kernel_shap", "shap", inputs=some, baselines=typical)
    print(pd.DataFrame(by_shap.values.round(1), columns=by_shap.feature_names, index=some.index))
    apart = np.abs(by_captum.values - by_shap.values).max() / np.abs(by_shap.values).max()
    print(f"the two toolsets differ by a relative {apart:.0e}; {by_shap.provenance['completeness']['against']} is met")
    if apart > 1e-5:
        sys.exit("They have to agree.")
    folder.mkdir(parents=True, exist_ok=True)
    print("written:", by_shap.save(folder / "rents.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "table-output"))
