"""`tools/evaluate.py`: a checkpoint's figures on a benchmark."""

import json
import sys
from pathlib import Path

from coca_video.checkpoint import load_checkpoint
from coca_video.cli import load_config, pick_device
from coca_video.config import EvaluateConfig
from coca_video.evaluation.emoji import evaluate_emoji
from coca_video.files import write_whole


def main() -> None:
    config = load_config(EvaluateConfig, "evaluate", sys.argv[1:])
    device = pick_device(config.device)
    checkpoint = load_checkpoint(config.checkpoint)
    checkpoint.model.to(device)
    checkpoint.model.image_encoder.merged_per_block = config.merged_per_block
    result, predictions = evaluate_emoji(checkpoint, config.evaluate, device=device)
    result["protocol"]["merged_per_block"] = config.merged_per_block
    output = Path(config.output or config.checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "predictions.jsonl", "".join(json.dumps(line) + "\n" for line in predictions))
    write_whole(output / "result.json", json.dumps(result, indent=1) + "\n")
    print(summary(result))
    print(f"written: {output / 'result.json'}, {output / 'predictions.jsonl'}")


def summary(result: dict) -> str:
    """The figures as a small table."""
    actions, retrieval, captions = result["actions"], result["retrieval"], result["captions"]
    rows = [f"{result['benchmark']}, setting {result['setting'].upper()}, {result['checkpoint']['path']}"]
    rows.append(f"{'':24}{'video':>10}{'first':>10}{'mean':>10}")
    views = ("video", "first_frame", "mean_of_frames")
    for name in ("top1", "top5"):
        rows.append(f"{'ACTIONS ' + name:24}" + "".join(f"{actions[view][name]:10.1f}" for view in views))
    for way in ("video_to_text", "text_to_video"):
        for name in ("R@1", "R@5"):
            figures = "".join(f"{retrieval[view][way][name]:10.1f}" for view in views)
            rows.append(f"{way.replace('_', ' ') + ' ' + name:24}" + figures)
    for name in ("exact_match", "distinct_ratio", "cider_d"):
        figures = "".join(f"{captions[view][name]:10.2f}" for view in views[:2])
        rows.append(f"{'CAPTIONS ' + name:24}" + figures)
    for task in ("actions", "retrieval", "captions"):
        rows.append(f"{task}: {result[task]['num_evaluated']} of {result[task]['num_expected']} evaluated")
    return "\n".join(rows)
