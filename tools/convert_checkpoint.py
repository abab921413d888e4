"""Imports an open_clip checkpoint, or exports to its scheme.

python tools/convert_checkpoint.py open_clip_pytorch_model.bin checkpoints/coca_b32
python tools/convert_checkpoint.py runs/my_run open_clip_model.safetensors
"""

from coca_video.cli import run
from coca_video.commands.convert import main

if __name__ == "__main__":
    run(main)
