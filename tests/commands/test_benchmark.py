import importlib.util
import json

import pytest
import torch
from datasets import call, refusal

from coca_video.benchmarks.peers import GENERATE
from coca_video.commands.benchmark import BENCHMARKS, main, parse


@pytest.mark.parametrize("option", ["--batch-size", "--num-tokens", "--num-beams", "--repeats", "--threads"])
def test_numbers_must_be_positive(option, capsys):
    assert refusal(main, "generate", option, 0, capsys=capsys) == f"{option} 0: at least 1 is needed"


def test_each_of_several_numbers_must_be_positive(capsys):
    refused = refusal(main, "scaling", "--batch-sizes", 4, 0, capsys=capsys)
    assert refused == "--batch-sizes 0: at least 1 is needed"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="the peer is installed")
def test_a_missing_peer_is_told(capsys):
    assert refusal(main, "generate", capsys=capsys) == GENERATE


@pytest.mark.parametrize("name", ["ViT-B-32", "nothing.json"])
def test_a_model_that_is_no_coca_is_told(name, capsys):
    expected = f"--model {name}: the choices are coca_ViT-B-32, "
    assert refusal(main, "train_step", "--model", name, capsys=capsys).startswith(expected)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_the_common_options(name):
    args = parse([name, "--repeats", "5", "--threads", "1", "--device", "cpu"])
    assert (args.benchmark, args.repeats, args.threads, args.device) == (name, 5, 1, "cpu")


def test_a_run_is_printed_and_written(tmp_path, capsys):
    output = tmp_path / "benchmark" / "scaling.json"
    sizes = ["--frames", 1, 2, "--batch-sizes", 1, 2, "--text-lengths", 3, 6]
    call(main, "scaling", *sizes, "--repeats", 1, "--threads", 1, "--output", output)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "tiny, float32, forward" and printed[-1].startswith("log-log slopes: ")
    assert f"written: {output}" in printed
    has_gpu = torch.cuda.is_available()
    assert ("no GPU was at hand: these are a CPU's figures" in printed) != has_gpu
    content = json.loads(output.read_text())
    assert content["benchmark"] == "scaling" and content["settings"]["frames"] == [1, 2]
    machine = content["machine"]
    assert machine["torch"] == torch.__version__ and machine["threads"] == 1
    assert machine["matmul_gflops"] > 0 and machine["copy_gb_per_second"] > 0
    assert list(content["slopes"]) == list(content["seconds"])
