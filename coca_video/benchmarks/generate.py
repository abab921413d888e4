"""Captions: tokens a second, beside open_clip's generate."""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from coca_video.benchmarks import peers
from coca_video.benchmarks.measure import take_turns
from coca_video.benchmarks.report import Result
from coca_video.generate import Rules, beam_search, greedy, sample
from coca_video.models.coca import CoCa
from coca_video.models.decoding import CachedDecoder, packed_decoders

BEGIN, END = 49406, 49407  # of CLIP's vocabulary


@dataclass
class Comparison:
    """Medians over the repeats, in which the two sides take turns."""

    mode: str
    ours: float  # seconds
    theirs: float  # seconds
    num_tokens: int  # written in that time

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    peers.add_model(parser)
    parser.add_argument("--batch-size", type=int, default=4, help="pictures; default: %(default)s")
    parser.add_argument("--num-tokens", type=int, default=20, help="of each text; default: %(default)s")
    parser.add_argument("--num-beams", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--top-p", type=float, default=0.1, help="default: %(default)s")


@torch.inference_mode()
def run(args: argparse.Namespace, device: torch.device) -> Result:
    """open_clip's generate and ours, from the same pictures, with the same random weights."""
    peer, versions = peers.coca_with_generate(args.model)
    model = peers.converted(peer).to(device)
    peer.to(device)
    generator = torch.Generator().manual_seed(0)
    size = model.config.image.image_size
    pictures = torch.randn(args.batch_size, 3, size, size, generator=generator).to(device)
    ours, theirs = our_modes(model, pictures, args), _their_modes(peer, pictures, args)
    num_tokens = args.batch_size * args.num_tokens
    comparisons = []
    start = time.perf_counter()
    with packed_decoders(model):
        packing = time.perf_counter() - start
        for mode in tqdm(ours, desc="modes", unit="mode"):
            seconds = take_turns([ours[mode], theirs[mode]], repeats=args.repeats, device=device)
            comparisons.append(Comparison(mode, *seconds, num_tokens))
        is_same = torch.equal(*_greedy_tokens(model, peer, pictures, args))
    return _result(args, comparisons, versions, packing=packing, is_same=is_same)


Modes = dict[str, Callable[[], Tensor]]


def our_modes(model: CoCa, pictures: Tensor, args: argparse.Namespace) -> Modes:
    length = args.num_tokens + 1  # the begin token
    rules = Rules(end=END, max_length=length, min_length=length)
    prompts = torch.full((len(pictures), 1), BEGIN, device=pictures.device)

    def decoder(texts_per_clip: int = 1) -> CachedDecoder:
        memory, _ = model.pool(model.encode_frames(pictures.unsqueeze(1)))
        return CachedDecoder(model, memory, texts_per_clip=texts_per_clip, max_length=length)

    beams = {"rules": rules, "num_beams": args.num_beams}
    return {
        f"beam {args.num_beams}": lambda: beam_search(decoder(args.num_beams), prompts, **beams).ids,
        f"top-p {args.top_p}": lambda: sample(decoder(), prompts, rules=rules, top_p=args.top_p).ids,
        "greedy": lambda: greedy(decoder(), prompts, rules=rules).ids,
    }


def _their_modes(peer: Any, pictures: Tensor, args: argparse.Namespace) -> Modes:
    length = {"seq_len": args.num_tokens + 1, "min_seq_len": args.num_tokens, "fixed_output_length": True}
    beams = {"generation_type": "beam_search", "num_beams": args.num_beams, "num_beam_groups": 1}
    return {
        f"beam {args.num_beams}": lambda: peer.generate(pictures, **beams, **length),
        f"top-p {args.top_p}": lambda: peer.generate(
            pictures, generation_type="top_p", top_p=args.top_p, **length
        ),
        "greedy": lambda: peer.generate(pictures, generation_type="top_k", top_k=1, **length),
    }


def _greedy_tokens(
    model: CoCa, peer: Any, pictures: Tensor, args: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    """Both sides' ids 'b l', without the last: theirs is always made the end."""
    ours = our_modes(model, pictures, args)["greedy"]()[:, 0]
    theirs = _their_modes(peer, pictures, args)["greedy"]()
    return ours[:, :-1], theirs[:, : ours.shape[1] - 1]


def _result(
    args: argparse.Namespace,
    comparisons: list[Comparison],
    versions: dict[str, str],
    *,
    packing: float,
    is_same: bool,
) -> Result:
    rows = [["", "ours", "peer", "ours", "peer", "ratio"]]
    for each in comparisons:
        seconds = [f"{each.ours:.2f}s", f"{each.theirs:.2f}s"]
        rates = [f"{each.num_tokens / side:.1f} tok/s" for side in (each.ours, each.theirs)]
        rows.append([each.mode, *seconds, *rates, f"{each.ratio:.1f}x"])
    same = "the same" if is_same else "NOT the same"
    return Result(
        subject=f"{args.model}, batch {args.batch_size}, {args.num_tokens} tokens each, float32",
        rows=rows,
        figures={
            "peer": versions,
            "modes": [asdict(each) | {"ratio": each.ratio} for each in comparisons],
            "seconds_to_pack_weights": packing,
            "same_greedy_tokens": is_same,
        },
        notes=[
            f"peer: open_clip {versions['open_clip']} with transformers {versions['transformers']}",
            f"greedy decoding chooses {same} tokens on both sides",
            f"ours with packed weights (layers/linear.py): {packing:.2f}s once, not within the times",
        ],
        last="tokens a second, ours / open_clip's: "
        + ", ".join(f"{each.mode} {each.ratio:.1f}" for each in comparisons),
    )
