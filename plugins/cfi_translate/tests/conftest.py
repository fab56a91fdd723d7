"""Set-up of the tests of cfi-translate."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cfi_core.coexistence import load_safely

# Before pytest collects anything that imports tensorflow and then torch's compiler.
load_safely()
# The shared models lie beside the tests, and pytest may run in an import mode that does not look there.
sys.path.insert(0, str(Path(__file__).parent))
