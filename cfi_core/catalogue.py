"""What the project's own plugins bring, so that an error can say what to install.

The names stand in `catalogue.json`, which tools/catalogue.py writes: run it after a change of what a plugin offers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from cfi_core.specs import FrameworkSpec, ModelFormat

_TABLES = json.loads(files("cfi_core").joinpath("catalogue.json").read_text("utf-8"))

DISTRIBUTION_OF_FRAMEWORK: Mapping[str, str] = _TABLES["frameworks"]
DISTRIBUTION_OF_TOOLSET: Mapping[str, str] = _TABLES["toolsets"]
DISTRIBUTION_OF_TRANSLATOR: Mapping[str, str] = _TABLES["translators"]
TARGET_OF_TRANSLATOR: Mapping[str, str] = _TABLES["reached"]
DISTRIBUTION_OF_PLOTTER: Mapping[str, str] = _TABLES["plotters"]
DISTRIBUTION_OF_WRITER: Mapping[str, str] = _TABLES["writers"]
TOOLSETS_OF_METHOD: Mapping[str, Sequence[str]] = _TABLES["methods"]
PREPARATIONS: Sequence[Mapping[str, Any]] = _TABLES["preparations"]
FRAMEWORKS: Mapping[str, FrameworkSpec] = {
    fields["name"]: FrameworkSpec(**{**fields, "formats": [ModelFormat(**one) for one in fields.get("formats", ())]})
    for fields in _TABLES["known"]
}
