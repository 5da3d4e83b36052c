"""Writes outcomes.json beside this script: what Pillow makes of the first 1000 files of seed 1.

Run with the versions of requirements.txt, and the built program:  python generate.py target/release/decode-campaign
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import PIL

import judge

HERE = pathlib.Path(__file__).parent
SEED = 1
N_FILES = 1000

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        pack = f"{folder}/pack"
        command = [sys.argv[1], "pack", pack, "--seed", str(SEED), "--files", str(N_FILES)]
        subprocess.run(command, check=True)
        outcomes = [judge.outcome(data) for data in judge.files(pack)]
    golden = {
        "generator": "bins/decode-campaign/golden/generate.py",
        "versions": {"pillow": PIL.__version__},
        "seed": SEED,
        "outcomes": " ".join("-" if outcome.startswith("refused") else outcome for outcome in outcomes),
    }
    (HERE / "outcomes.json").write_text(json.dumps(golden, indent=0) + "\n")
