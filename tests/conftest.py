"""Makes the helpers beside this file importable from every test, and keeps onnxruntime from reporting anything."""

import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

sys.path.insert(0, str(Path(__file__).parent))
