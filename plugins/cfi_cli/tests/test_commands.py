"""Every command in this process: answers on stdout, words on stderr, exit codes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from cfi_cli import plugin
from cfi_cli.app import load_command
from cfi_cli.exits import Code
from cfi_cli.terminal import in_options
from cfi_core.registry import registry
from cfi_core.testing import use_plugins
from cfi_core.testing.fake import Painting

FOLDER = Path(__file__).resolve().parents[1]

generator = np.random.default_rng(1)
MIX, HEAD = generator.normal(size=(4, 3)), generator.normal(size=(5, 4))
"""Of the models that the fixture `shop` writes."""


def gradient(target: int) -> np.ndarray:
    """In closed form, of the two images of the fixture."""
    images = np.random.default_rng(2).normal(size=(2, 3, 5, 7))
    return Painting(MIX, HEAD).gradients(images, np.eye(5)[[target, target]])["input"]


# lists


def test_methods_are_listed_and_none_is_imported(cfi):
    ran = cfi("methods")
    assert ran.code == Code.DONE and ran.err == ""
    assert ran.out.splitlines()[0].split() == ["method", "toolset", "kind", "arguments"]
    assert "press_gradient" in ran.out


def test_methods_as_json(cfi):
    keys = [one["key"] for one in cfi("methods", "--json").json]
    assert "press_gradient" in keys and keys == sorted(keys)
    assert {one["toolset"] for one in cfi("methods", "--toolset", "press", "--json").json} == {"press"}


def test_one_method(cfi):
    assert "press_gradient" in cfi("methods", "press_gradient").out


def test_a_method_that_is_not_there(cfi):
    ran = cfi("methods", "grad_cma")
    assert ran.code == Code.REFUSED and ran.out == ""
    assert "grad_cma" in ran.err


@pytest.mark.parametrize("name", ["toolsets", "frameworks", "translators", "plugins"])
def test_a_list_in_words_and_as_json(cfi, name):
    listed, as_json = cfi(name), cfi(name, "--json")
    assert (listed.code, listed.err, as_json.err) == (Code.DONE, "", "")
    names = [one["name"] for one in as_json.json]
    assert names and all(one in listed.out for one in names)


# help and usage


def test_help_lists_all_commands_exit_codes_and_examples(cfi):
    ran = cfi("--help")
    assert ran.code == Code.DONE
    for word in ("attribute", "verify", "Exit codes:", "130", "Examples:", "--install-completion"):
        assert word in ran.out


@pytest.mark.parametrize(
    "name",
    [
        "methods",
        "toolsets",
        "frameworks",
        "translators",
        "plugins",
        "doctor",
        "layers",
        "plan",
        "attribute",
        "compare",
        "report",
        "translate",
        "verify",
    ],
)
def test_every_command_has_help_with_an_example(cfi, name):
    ran = cfi(name, "--help")
    assert ran.code == Code.DONE and f"cfi {name}" in ran.out.partition("Example")[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["attribut"], "Did you mean 'attribute'?"),
        (["attribute"], "Missing"),
        (["layers", "shop:painting", "--frobnicate"], "No such option"),
        (["attribute", "shop:painting", "images.npy", "-m", "press_gradient", "--seed", "x"], "--seed"),
    ],
)
def test_a_line_that_is_wrong(cfi, arguments, told):
    ran = cfi(*arguments)
    assert ran.code == Code.USAGE and told in ran.err and ran.out == ""


def test_the_version(cfi):
    ran = cfi("--version")
    assert ran.code == Code.DONE and ran.out.startswith("cfi ")


def documented() -> list[str]:
    """Lines of commands in the pages about them, and in the examples of their help."""
    pages = [*FOLDER.glob("src/**/*.py"), FOLDER / "README.md", FOLDER.parents[1] / "docs/command-line.md"]
    texts = [page.read_text().replace("\\\n", " ") for page in pages if page.exists()]
    lines = [line for text in texts for line in re.findall(r"^ *(cfi [a-z-]+ .*)$", text, re.MULTILINE)]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|\|| # |\s{3,}#", line)]
    return sorted(
        {part for part in parts if re.match(r"cfi [a-z]", part) and "…" not in part and "COMMAND" not in part}
    )


def test_there_are_documented_lines():
    assert len(documented()) > 25


@pytest.mark.parametrize("line", documented())
def test_what_is_documented_can_be_typed(line):
    name, *arguments = shlex.split(line)[1:]
    with use_plugins(plugin):
        found = load_command(registry().commands[name])
        found.make_context(f"cfi {name}", arguments)  # raises where an option is unknown


# models


def test_layers(cfi):
    ran = cfi("layers", "shop:painting", "images.npy", "--json")
    assert [one["name"] for one in ran.json] == ["mix", "relu", "pool", "head"]
    assert ran.json[0]["output_shape"] == [4, 5, 7]
    assert "4 × 5 × 7" in cfi("layers", "shop:painting", "images.npy").out


def test_a_factory_in_a_file(cfi):
    assert cfi("layers", "shop.py:painting", "--json").json[0]["name"] == "mix"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("shop:broken", "the weights are lost"),
        ("shop:paintings", "paintings"),
        ("shop.py:paintings", "It has: Painting, Print, painting"),
        ("shop.py:number", "is a int; MODEL names a function"),
        ("nowhere:model", "nowhere"),
        ("nothing.onnx", "nothing.onnx"),
        ("nowhere.py:model", "There is no file"),
    ],
)
def test_a_model_that_cannot_be_had_is_told_in_two_lines(cfi, model, told):
    ran = cfi("layers", model)
    assert ran.code == Code.REFUSED and ran.out == ""
    assert told in ran.err and len(ran.err.splitlines()) == 2 and "Traceback" not in ran.err


def test_debug_shows_the_traceback(cfi):
    ran = cfi("layers", "shop:broken", "--debug")
    assert ran.code == Code.REFUSED and "Traceback" in ran.err and 'raise ValueError("the weights are lost")' in ran.err


def test_an_interrupt(cfi):
    ran = cfi("layers", "shop:asked_to_stop")
    assert ran.code == Code.INTERRUPTED and ran.out == "" and "Traceback" not in ran.err


def test_what_a_model_prints_is_no_part_of_the_answer(cfi):
    ran = cfi("layers", "shop:noisy", "--json")
    assert ran.json[0]["name"] == "mix" and "loading the weights" in ran.err


# explanations


def test_attribute(cfi, shop):
    ran = cfi(
        "attribute", "shop:painting", "images.npy", "-m", "press_gradient", "--target", 3, "-o", "a/b.npz", "--json"
    )
    assert ran.code == Code.DONE
    made = ran.json
    assert (made["method"], made["toolset"], made["target"], made["files"]) == (
        "press_gradient",
        "press",
        3,
        ["a/b.npz"],
    )
    assert made["values"][0]["dims"] == ["sample", "channel", "height", "width"]
    np.testing.assert_allclose(np.load("a/b.npz")["values"], gradient(3), rtol=1e-6)
    outputs = Painting(MIX, HEAD)(np.load("images.npy"))
    assert [one["predictions"][0]["index"] for one in made["samples"]] == outputs.argmax(axis=1).tolist()


def test_attribute_in_words(cfi):
    ran = cfi(
        "attribute", "shop:painting", "images.npy", "-m", "press_gradient@press", "--target", "predicted", "-o", "out"
    )
    assert ran.code == Code.DONE
    for words in ("method      press_gradient", "certificate faithful", "written     out/press-press_gradient.png"):
        assert words in ran.out
    assert "-o out has no suffix, so it becomes a folder" in ran.err


LINES = {
    "attribute": ["-m", "press_gradient", "--target", "1"],
    "compare": ["-m", "press_gradient", "--target", "1"],
    "report": ["-m", "press_gradient", "--target", "1"],
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("/dev/full", "-o /dev/full"),
        ("images.npy/a.html", "images.npy is no folder"),
        ("a.tiff", "nothing writes '.tiff' files here. Known are "),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(cfi, name, place, told):
    """The model is not even made: nobody waits for an answer that is lost."""
    ran = cfi(name, "shop:broken", "images.npy", *LINES[name], "-o", place)
    assert ran.code == Code.REFUSED and told in ran.err and "Errno" not in ran.err
    assert "the weights are lost" not in ran.err


def test_a_disk_that_is_full_is_told_in_words(cfi, shop):
    (shop / "full.npz").symlink_to("/dev/full")
    ran = cfi("attribute", "shop:painting", "images.npy", *LINES["attribute"], "-o", "full.npz")
    assert ran.code == Code.REFUSED and "-o full.npz cannot be written: No space left on device." in ran.err


def test_names_of_classes_are_targets(cfi, shop):
    (shop / "names.txt").write_text("an ant\na bee\na cat\na dog\nan emu\n")
    line = ("attribute", "shop:painting", "images.npy", "-m", "press_gradient", "--classes", "names.txt", "--target")
    assert cfi(*line, "a dog", "--json").json["target"] == 3
    assert "a dog (3)" in cfi(*line, "a dog").out or "largest output" in cfi(*line, "a dog").out
    ran = cfi(*line, "cat")
    assert ran.code == Code.REFUSED and "It has a cat" in ran.err


def test_a_layer_method_without_a_layer_lists_them(cfi):
    line = ("attribute", "shop:painting", "images.npy", "-m", "press_map", "--target", 1)
    ran = cfi(*line)
    assert ran.code == Code.REFUSED and "--layer" in ran.err and "mix" in ran.err
    assert cfi(*line, "--layer", "relu", "--json").json["layer"] == "relu"


def test_a_method_without_samples_says_what_to_do(cfi):
    ran = cfi("attribute", "shop:painting", "-m", "press_gradient")
    assert ran.code == Code.REFUSED and "name files" in ran.err and "behind MODEL" in ran.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--target", "9"], "9"),
        (["--target", "1", "--exec", "gain"], "NAME=VALUE"),
        (["--target", "1", "--exec", "gein=2"], "gein"),
        (["--target", "1", "-o", "x.tiff"], ".tiff"),
        (["--target", "1", "--toolset", "pres"], "pres"),
        (["--target", "1", "--neuron", "one"], "--neuron"),
        (["--target", "1", "--head", "tail"], "tail"),
    ],
)
def test_what_does_not_fit_is_refused_in_two_lines(cfi, more, told):
    ran = cfi("attribute", "shop:painting", "images.npy", "-m", "press_gradient", *more)
    assert ran.code == Code.REFUSED and told in ran.err and ran.out == ""
    assert len(ran.err.splitlines()) == 2


def test_what_is_missing_is_named_as_an_option(cfi):
    ran = cfi("attribute", "shop:painting", "images.npy", "-m", "press_gradient")
    assert ran.code == Code.REFUSED and "Pass --target, for example --target 0 " in ran.err


def test_lines_of_python_stay_such():
    line = 'Write: cfi.attribute(model, "saliency", target=3)'
    assert in_options(line) == line
    assert in_options("a.target=3, x_layer=2") == "a.target=3, x_layer=2"


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("baselines='zero' is for tokens", "--baselines 'zero' is for tokens"),
        ("pass baselines=: the mean. baselines=0 says so.", "pass --baselines: the mean. --baselines 0 says so."),
        (
            "pass exec_args={'size': (3, 3)}. cfi.methods('occlusion') says what that means.",
            'pass --exec "size=(3, 3)". cfi methods occlusion says what that means.',
        ),
        ("init_args={'n_iter': 46} would do", '--init "n_iter=46" would do'),
        ("cfi.layers(model) lists all; pass target=0.", "cfi layers MODEL lists all; pass --target 0."),
    ],
)
def test_what_the_library_advises_can_be_typed(told, shown):
    assert in_options(told) == shown


def test_warnings_speak_of_options_too(cfi, shop):
    (shop / "wordy.py").write_text(
        "import warnings, shop\nfrom cfi_core import CFIWarning\n\ndef make():\n"
        "    warnings.warn('Pass toolset= to choose.', CFIWarning)\n    return shop.painting()\n"
    )
    assert "warning: Pass --toolset to choose." in cfi("layers", "wordy.py:make").err


@pytest.mark.parametrize("option", [["--preprocess", "unit"], ["--size", "5"], ["--channels", "first"], ["--grey"]])
def test_what_is_for_pictures_is_not_passed_over_for_arrays(cfi, option):
    ran = cfi("attribute", "shop:painting", "images.npy", "-m", "press_gradient", "--target", 1, *option)
    assert ran.code == Code.REFUSED and f"{option[0]} is for pictures, and images.npy holds arrays" in ran.err


def test_a_file_of_code_lacks_the_name_of_a_function(cfi):
    ran = cfi("layers", "shop.py")
    assert ran.code == Code.REFUSED and "shop.py:FUNCTION" in ran.err


def test_an_argument_of_the_method_is_told_its_place(cfi):
    ran = cfi("attribute", "shop:painting", "images.npy", "-m", "press_gradient", "--gain", 2)
    assert ran.code == Code.USAGE and "No such option: --gain" in ran.err and "--exec NAME=VALUE" in ran.err
    assert "--exec" not in cfi("layers", "shop:painting", "--gain", 2).err


def test_a_plan_runs_nothing(cfi):
    ran = cfi("plan", "shop:painting", "press_gradient", "images.npy", "--target", 1, "--json")
    assert (ran.json["framework"], ran.json["toolset_framework"]) == ("paint", "print")
    assert "route" in cfi("plan", "shop:painting", "press_gradient", "images.npy", "--target", 1).out


def test_a_plan_without_an_input_tells_all_ways(cfi):
    asked = ("plan", "shop:painting", "press_gradient")
    assert cfi(*asked, "--json").json == [
        {"toolset": "press", "route": "paint → print (paint2print)", "needs": "inputs"}
    ]
    assert "paint2print" in cfi(*asked).out


# two models


def test_two_models_that_compute_the_same_with_other_axes(cfi):
    ran = cfi("verify", "shop:painting", "shop:printed", "--shape", "3,6,8")
    assert ran.code == Code.DONE and ran.out.startswith("the same")
    ran = cfi("verify", "shop:painting", "shop:printed", "images.npy", "--json")
    assert ran.code == Code.DONE and ran.json["same"] is True
    assert ran.json["input_axes"] == [[0, 2, 3, 1]]
    assert [one["other"] for one in ran.json["layers"]] == ["mix", "relu", "pool", "head"]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("shop:probabilities", "the other model gives the softmax"),
        ("shop:shuffled", "the same classes in another order"),
        ("shop:heavier", "the first layer that differs is 'head'"),
    ],
)
def test_two_models_that_differ(cfi, other, told):
    ran = cfi("verify", "shop:painting", other, "images.npy")
    assert ran.code == Code.NO and ran.out.startswith("DIFFERENT") and told in ran.out
    assert cfi("verify", "shop:painting", other, "images.npy", "--json").json["same"] is False


def test_inputs_by_name_are_given_in_the_order_of_the_models(cfi, shop):
    (shop / "named.py").write_text(
        "def one():\n    return lambda x, mask: x * mask\n\n"
        "def same():\n    return lambda x, mask: mask * x\n\n"
        "def turned():\n    return lambda mask, x: mask * x\n"
    )
    np.savez("two.npz", mask=np.array([[0.0, 1.0], [1.0, 0.5]]), x=np.array([[3.0, 4.0], [5.0, 6.0]]))
    assert cfi("verify", "named:one", "named:same", "two.npz").code == Code.DONE
    assert "in another order" in cfi("verify", "named:one", "named:turned", "two.npz").err
    np.savez("three.npz", mask=np.ones((2, 2)), y=np.ones((2, 2)))
    assert "takes x, mask" in cfi("verify", "named:one", "named:same", "three.npz").err


def test_verify_without_a_shape_says_what_to_do(cfi):
    ran = cfi("verify", "shop:painting", "shop:printed")
    assert ran.code == Code.REFUSED and "--shape" in ran.err


def test_the_certificate_of_a_translation(cfi):
    ran = cfi("translate", "shop:painting", "images.npy", "--to", "print", "--json")
    assert ran.code == Code.DONE and ran.json["faithful"] is True
    assert ran.json["layers"]["mix"] == "mix"


def test_a_suffix_of_other_files_is_refused_before_anything_is_done(cfi):
    ran = cfi("translate", "shop:broken", "--to", "tensorflow", "-o", "model.h5")
    assert ran.code == Code.REFUSED and ".keras" in ran.err


# hostile names


def test_names_of_a_model_steer_no_terminal(cfi, shop):
    np.save("rows.npy", np.ones((1, 3)))
    ran = cfi("attribute", "shop:Regressor", "rows.npy", "-m", "press_gradient", "--target", 0)
    assert "\x1b" not in ran.out + ran.err
    assert "\x1b" not in cfi("layers", "shop:\x1b[31mred").err


def test_json_holds_no_number_that_json_has_not(cfi):
    from cfi_cli.terminal import plain

    made = plain({"a": np.float32(np.nan), "b": [np.inf, 1.5], "c": np.int64(3), "d": (True, None), "e": {2, 1}})
    assert json.loads(json.dumps(made, allow_nan=False)) == {
        "a": None,
        "b": [None, 1.5],
        "c": 3,
        "d": [True, None],
        "e": [1, 2],
    }
