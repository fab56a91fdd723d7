"""What an extra of a plugin would bring is named with the line that installs it."""

import numpy as np
import pytest

import cfi_core as cfi
from cfi_core.hookspec import hookimpl
from cfi_core.specs import Need, TranslatorSpec
from cfi_core.testing import fake, use_plugins
from cfi_core.testing.fake import Painting


class Library:
    """A translator of a library that is not installed, beside those of the fake plugin."""

    @staticmethod
    @hookimpl
    def cfi_translators():
        return [
            TranslatorSpec(
                name="library",
                source="paint",
                target="print",
                preserves=frozenset(Need),
                cost=50,
                implementation="no_such_library:convert",
                requirements=("numpy>=1", "no-such-library>=2"),
                extra="my-plugin[libraries]",
            )
        ]


LINE = r"pip install 'my-plugin\[libraries\]'"


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(size=(2, 3, 5, 7))


def painting(**options):
    generator = np.random.default_rng(1)
    return Painting(generator.normal(size=(4, 3)), generator.normal(size=(5, 4)), **options)


def test_a_translator_that_lacks_its_library_names_the_line(images):
    with use_plugins(fake, Library()), pytest.raises(cfi.RouteError, match=f"lacks no-such-library>=2.*{LINE}"):
        cfi.attribute(painting(), "press_gradient", inputs=images, target=0, translator="library")


@pytest.mark.parametrize(
    ("fault", "error"), [("refuses", cfi.TranslationError), ("distorts", cfi.UnfaithfulTranslationError)]
)
def test_a_refusal_that_a_library_could_serve_names_the_line(images, fault, error):
    with use_plugins(fake, Library()), pytest.raises(error, match=rf"another way, .*\(library\).*{LINE}") as caught:
        cfi.attribute(painting(**{fault: True}), "press_gradient", inputs=images, target=0)
    assert isinstance(caught.value.__cause__, error)
    with use_plugins(fake), pytest.raises(error) as caught:
        cfi.attribute(painting(**{fault: True}), "press_gradient", inputs=images, target=0)
    assert "pip" not in str(caught.value)
