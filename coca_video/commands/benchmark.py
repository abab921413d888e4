"""`tools/benchmark.py`: speed, beside a peer on the same weights and what the machine can do at most."""

import argparse
import importlib
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from coca_video.checkpoint import build_model
from coca_video.cli import pick_device
from coca_video.errors import InputError
from coca_video.files import write_whole
from coca_video.generate import Rules, beam_search, greedy, sample
from coca_video.interop.open_clip import infer_config
from coca_video.interop.scheme import from_open_clip
from coca_video.models.coca import CoCa
from coca_video.models.decoding import CachedDecoder, packed_decoders

BEGIN, END = 49406, 49407  # of CLIP's vocabulary
PEER = (
    "open_clip's generate needs open_clip_torch and transformers < 4.57: pip install 'coca-video[benchmark]'"
)


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


def main() -> None:
    args = _parser().parse_args()
    for name in ("batch_size", "num_tokens", "num_beams", "repeats", "threads"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {getattr(args, name)}: at least 1 is needed")
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    result = compare_generation(args, device)
    print(_table(result))
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(args.output, json.dumps(result, indent=1) + "\n")
        print(f"written: {args.output}")


@torch.inference_mode()
def compare_generation(args: argparse.Namespace, device: torch.device) -> dict:
    """open_clip's generate and ours, from the same pictures, with the same random weights."""
    peer = _peer(args.model, device)
    model = _ours(peer).to(device)
    generator = torch.Generator().manual_seed(0)
    size = model.config.image.image_size
    pictures = torch.randn(args.batch_size, 3, size, size, generator=generator).to(device)
    ours, theirs = _our_modes(model, pictures, args), _their_modes(peer, pictures, args)
    num_tokens = args.batch_size * args.num_tokens
    comparisons = []
    start = time.perf_counter()
    with packed_decoders(model):
        packing = time.perf_counter() - start
        for mode in tqdm(ours, desc="modes", unit="mode"):
            seconds = _take_turns([ours[mode], theirs[mode]], repeats=args.repeats, device=device)
            comparisons.append(Comparison(mode, *seconds, num_tokens))
        is_same = torch.equal(*_greedy_tokens(model, peer, pictures, args))
    return {
        "benchmark": "generate",
        "peer": {
            "open_clip": importlib.import_module("open_clip").__version__,
            "transformers": importlib.import_module("transformers").__version__,
        },
        "settings": {key: value for key, value in vars(args).items() if key not in ("output", "benchmark")},
        "machine": _machine(device, args.threads),
        "modes": [asdict(each) | {"ratio": each.ratio} for each in comparisons],
        "seconds_to_pack_weights": packing,
        "same_greedy_tokens": is_same,
    }


def _peer(name: str, device: torch.device) -> Any:
    """open_clip's model, all of whose weights are random: it leaves one uninitialised."""
    if importlib.util.find_spec("open_clip") is None or importlib.util.find_spec("transformers") is None:
        raise InputError(PEER)
    open_clip = importlib.import_module("open_clip")
    if not importlib.import_module("open_clip.coca_model")._has_transformers:
        raise InputError(f"transformers {importlib.import_module('transformers').__version__}: {PEER}")
    if name not in open_clip.list_models() or "coca" not in name:
        choices = [each for each in open_clip.list_models() if each.startswith("coca_ViT")]
        raise InputError(f"--model {name}: the choices are {', '.join(choices)}")
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    torch.nn.init.normal_(model.text_decoder.text_projection, std=0.02)
    return model.to(device).eval()


def _ours(peer: Any) -> CoCa:
    tensors = peer.state_dict()
    config = infer_config(tensors)
    return build_model(config, from_open_clip(tensors, config), Path("open_clip"))[0]


Modes = dict[str, Callable[[], Tensor]]


def _our_modes(model: CoCa, pictures: Tensor, args: argparse.Namespace) -> Modes:
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
    ours = _our_modes(model, pictures, args)["greedy"]()[:, 0]
    theirs = _their_modes(peer, pictures, args)["greedy"]()
    return ours[:, :-1], theirs[:, : ours.shape[1] - 1]


def _take_turns(sides: list[Callable], *, repeats: int, device: torch.device) -> list[float]:
    """The median seconds of each side, warmed up once; a busy moment of the machine meets both."""
    taken: list[list[float]] = [[] for _ in sides]
    for i in range(repeats + 1):
        for side, seconds in zip(sides, taken):
            elapsed = _seconds(side, device)
            if i:
                seconds.append(elapsed)
    return [statistics.median(seconds) for seconds in taken]


def _seconds(call: Callable, device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _machine(device: torch.device, threads: int) -> dict:
    """What it is, and its ceilings: the rate of a large product of matrices, and of copying memory."""
    side = 2048
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    source = torch.randn(2**26, device=device)  # 256 MiB
    target = torch.empty_like(source)
    product = min(_seconds(lambda: a @ b, device) for _ in range(5))
    copy = min(_seconds(lambda: target.copy_(source), device) for _ in range(5))
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.processor() or "cpu",
        "threads": threads,
        "torch": torch.__version__,
        "matmul_gflops": 2 * side**3 / product / 1e9,
        "copy_gb_per_second": 2 * source.nbytes / copy / 1e9,
    }


def _table(result: dict) -> str:
    machine, peer, settings = result["machine"], result["peer"], result["settings"]
    lines = [
        f"{settings['model']}, batch {settings['batch_size']}, {settings['num_tokens']} tokens each, float32",
        f"{machine['device']}, {machine['threads']} threads: {machine['matmul_gflops']:.0f} GFLOPS (matmul), "
        f"{machine['copy_gb_per_second']:.1f} GB/s (copy); torch {machine['torch']}",
        f"peer: open_clip {peer['open_clip']} with transformers {peer['transformers']}",
        "",
        f"{'':12}{'ours':>10}{'peer':>10}{'ours':>14}{'peer':>14}{'ratio':>8}",
    ]
    for mode in result["modes"]:
        ours, theirs, num_tokens = mode["ours"], mode["theirs"], mode["num_tokens"]
        rates = f"{num_tokens / ours:8.1f} tok/s{num_tokens / theirs:8.1f} tok/s"
        lines.append(f"{mode['mode']:12}{ours:9.2f}s{theirs:9.2f}s{rates}{mode['ratio']:7.1f}x")
    is_same = "the same" if result["same_greedy_tokens"] else "NOT the same"
    lines += ["", f"greedy decoding chooses {is_same} tokens on both sides"]
    packing = f"{result['seconds_to_pack_weights']:.2f}s"
    return "\n".join(
        [*lines, f"ours with packed weights (layers/linear.py): {packing} once, not within the times"]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measures speed as a ratio, both sides in one run.")
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    generate = benchmarks.add_parser(
        "generate", help="captions: tokens a second, beside open_clip's generate"
    )
    generate.add_argument("--model", default="coca_ViT-B-32", help="open_clip's name; default: %(default)s")
    generate.add_argument("--batch-size", type=int, default=4, help="pictures; default: %(default)s")
    generate.add_argument("--num-tokens", type=int, default=20, help="of each text; default: %(default)s")
    generate.add_argument("--num-beams", type=int, default=6, help="default: %(default)s")
    generate.add_argument("--top-p", type=float, default=0.1, help="default: %(default)s")
    generate.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    generate.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    generate.add_argument("--device", default="auto", help="default: cuda where there is one")
    generate.add_argument("--output", type=Path, metavar="FILE", help="also as JSON")
    return parser
