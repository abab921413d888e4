"""A run in a process of its own, to be killed: python killed_run.py ROOT OUTPUT RECORD [key=value ...]"""

import sys
from pathlib import Path

import torch
from runs import Recorded, run

if __name__ == "__main__":
    torch.set_num_threads(1)
    root, output, record = map(Path, sys.argv[1:4])
    run(root, output, *sys.argv[4:], stream=type("ThisRecord", (Recorded,), {"record": record}))
