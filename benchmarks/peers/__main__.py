"""Runs the tests of captum or tf-keras-vis through CFI, and counts what is the same.

    git clone https://github.com/pytorch/captum               # at the commit of the installed version, or the nearest
    git clone --branch v0.8.7 https://github.com/keisen/tf-keras-vis
    pip install pytest parameterized                          # what captum's tests need besides captum

    python benchmarks/peers captum                            # natively, and over both routes
    python benchmarks/peers captum --routes native --log captum.jsonl
    python benchmarks/peers tf-keras-vis -- -k Saliency       # what stands behind -- goes to pytest

The first argument is the folder of a checkout, or of an unpacked sdist that has the tests. Every call that a test
makes of one of the library's attribution classes is made once more by the library, and by `cfi.attribute` in the
library's own words with `defaults="toolset"`, both with seeded generators: on the model as it is; and on what
`cfi.translate` makes of it in the other framework, explained by the library again over a bridge, and over a
conversion back. The tests themselves get what the library gives.

Promised: no call differs, none ends in an error that is not CFI's own. What is refused is told with its reason. An
interrupt (Ctrl-C) ends the tests and prints what has been counted until then. The log has a line for each test that has
ended: a run with the same log leaves those out, and its report counts them. Tests that bring a function or a value of a
parameter not seen before come first, so that a run that is stopped has seen something of everything.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import pytest
from calls import ROUTES, Benchmark
from session import Log, Session
from tally import DIFFERENT, UNTYPED, Tally

SHIMS = {"captum": "captum_shim", "tf_keras_vis": "kerasvis_shim"}


def main() -> int:
    summary, _, description = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser("benchmarks/peers", description=summary, epilog=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="checkout of captum or tf-keras-vis")
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=ROUTES)
    parser.add_argument("--log", type=Path, metavar="FILE", help="every test with its calls, to go on from")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="of a test (default: %(default)s)")
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    options = parser.parse_args(own)
    tests = options.folder / "tests"
    library = "captum" if (tests / "attr").is_dir() else "tf_keras_vis"
    if not tests.is_dir():
        parser.error(f"{options.folder} holds no tests: take a checkout")
    shim, tally = import_module(SHIMS[library]), Tally()
    shim.install(Benchmark(tally, options.routes, shim.OTHER))
    session = Session(tally, Log(options.log), options.routes, options.limit)
    sys.path.append(str(options.folder))
    quietly = ["-q", "--disable-warnings", "--tb=no", "-p", "no:cacheprovider", f"--rootdir={options.folder}"]
    pytest.main([str(options.folder / shim.TESTS), *quietly, *sys.argv[len(own) + 2 :]], plugins=[session])
    print(session.told())
    return int(any(row.outcome in (DIFFERENT, UNTYPED) for row in session.rows()))


if __name__ == "__main__":
    sys.exit(main())
