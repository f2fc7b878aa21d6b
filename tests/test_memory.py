"""Loading takes no more memory than the weights need: they are read from the file straight to their place.

So it is where they are packed for the compiled code.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from inference_server.engine.native.library import available_variants
from tests.checkpoints import Shape, write_checkpoint
from tests.programs import ROOT

MEASURE = """
import sys, threading, time
from pathlib import Path
from inference_server.engine.model_loader import read_config, read_weights
from tests.checkpoints import load_model

def anonymous_bytes():
    [line] = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024

directory, peak, before = Path(sys.argv[1]), 0, anonymous_bytes()
def watch():
    global peak
    while True:
        peak = max(peak, anonymous_bytes())
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
config = read_config(directory)
if "pack" in sys.argv:
    from inference_server.engine.native.library import Library, available_variants
    from inference_server.engine.native.weights import PackedWeights
    packed = PackedWeights(config, Library(available_variants()[0]))
    read_weights(packed.places, directory, config, lambda share: None)
    print(sum(place.shape.numel() * 2 for place in packed.places.values()), max(peak, anonymous_bytes()) - before)
else:
    model = load_model(directory, config, "cpu", "auto", lambda share: None)
    print(sum(weight.nbytes for weight in model.module.parameters()), max(peak, anonymous_bytes()) - before)
"""


def measured(shape: Shape, directory: Path, *what: str) -> list[int]:
    write_checkpoint(directory, shape)
    command = [sys.executable, "-c", MEASURE, str(directory), *what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("shards", [1, 3])
def test_anonymous_memory_while_loading_stays_near_the_weights(shards: int, tmp_path: Path) -> None:
    shape = Shape(layers=6, hidden=1024, head_size=64, heads=16, intermediate=16_384, shards=shards, dtype="bfloat16")
    weight_bytes, peak_bytes = measured(shape, tmp_path)
    assert weight_bytes > 600e6
    print(f"{weight_bytes / 1e6:.0f} MB of weights, {peak_bytes / 1e6:.0f} MB at the peak")
    assert peak_bytes < weight_bytes + 200e6  # a second copy would be 600 MB more


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not available_variants(), reason="needs /proc and compiled code")
def test_packed_weights_are_not_held_twice(tmp_path: Path) -> None:
    shape = Shape(layers=14, hidden=1024, head_size=64, heads=16, intermediate=5120, dtype="bfloat16")
    weight_bytes, peak_bytes = measured(shape, tmp_path, "pack")
    print(f"{weight_bytes / 1e6:.0f} MB of weights, {peak_bytes / 1e6:.0f} at the peak")
    assert weight_bytes > 500e6
    assert peak_bytes < weight_bytes + 100e6
