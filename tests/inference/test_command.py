"""What both command lines share, with a predictor that needs no network."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from victim import Loudness
from ossicle.audio.hush import HUSH
from ossicle.inference.command import PredictOptions, predict

class Hushed(Loudness):
    def window_samples(self, **seconds):
        HUSH.__enter__()
        return super().window_samples(**seconds)

predict(Hushed(), [Path("gone.wav")], PredictOptions(), say=lambda sentence: print(sentence, file=sys.stderr))
"""


def test_what_there_is_to_say_is_heard_while_a_decoder_is_hushed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "gone.wav",
        "1 of 1 recordings could not be used.",
    ]
