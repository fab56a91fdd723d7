"""Set-up of the tests of cfi-onnx."""

import sys
from pathlib import Path

# What tests share lies beside them, and pytest may run in an import mode that does not look there.
sys.path.insert(0, str(Path(__file__).parent))
