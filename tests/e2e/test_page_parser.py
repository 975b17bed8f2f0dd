"""The page's own parser, by the same table as `sse.Parser`: whole, byte by byte and cut at every pair of places; under node."""

import subprocess
from pathlib import Path

from handlers.page.front import STATIC
from tests.support.require import require

VECTORS = Path(__file__).parents[1] / "vectors.json"


def test_every_vector_comes_out_however_it_is_cut_and_every_byte_belongs_to_a_step() -> None:
    command = [require("node"), str(Path(__file__).with_name("vectors.mjs")), str(VECTORS), str(STATIC)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == "all\n", run.stdout[:2000]
