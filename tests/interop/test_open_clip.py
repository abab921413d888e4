import argparse
import json
import os
import pickle
import re
from dataclasses import replace

import open_clip_models
import pytest
import torch
from open_clip_models import VOCAB_SIZE
from safetensors.torch import save_file

from coca_video.errors import InputError
from coca_video.interop.files import SUFFIXES, read_tensors, write_tensors
from coca_video.interop.open_clip import (
    describe,
    expected_shapes,
    export_open_clip,
    infer_config,
    read_open_clip,
)
from coca_video.interop.scheme import from_open_clip, to_open_clip
from coca_video.layers.patches import Stem
from coca_video.models.coca import CoCa
from coca_video.models.image_encoder import ImageStyle
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextStyle


@pytest.fixture(scope="module")
def tensors():
    return open_clip_models.tiny().state_dict()


@pytest.fixture
def file(tmp_path, tensors):
    return saved(tmp_path, tensors)


def saved(folder, tensors, *, name="weights.safetensors"):
    write_tensors(folder / name, tensors)
    return folder / name


def describe_beside(file, model_cfg, **more):
    described = file.with_name("open_clip_config.json")
    described.write_text(json.dumps({"model_cfg": model_cfg, **more}))
    return described


def refusal(file, read=read_open_clip) -> str:
    with pytest.raises(InputError) as caught:
        read(file)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{file.parent}/")
    return str(caught.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize("image_width", [64, 128])
def test_there_and_back(image_width):
    theirs = open_clip_models.tiny(image_width=image_width)
    tensors = theirs.state_dict()
    config = infer_config(tensors)
    ours = from_open_clip(tensors, config)
    with torch.device("meta"):
        assert ours.keys() == CoCa(config).state_dict().keys()
    back = to_open_clip(ours, config)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_an_export_loads_in_open_clip():
    theirs = open_clip_models.tiny()
    config = infer_config(theirs.state_dict())
    theirs.load_state_dict(export_open_clip(config, CoCa(config).state_dict()), strict=True)


@pytest.mark.parametrize("context_length", [76, 77, 256])
def test_sizes_are_those_of_the_tensors(context_length):
    theirs = open_clip_models.tiny(context_length=context_length, width=192, image_width=128, image_size=48)
    config = infer_config(theirs.state_dict())
    image, text = config.image, config.text
    assert (image.image_size, image.patch_size, image.width, image.mlp_width) == (48, 8, 128, 512)
    assert (image.num_layers, image.num_heads, config.num_pooler_heads) == (2, 2, 8)
    assert (text.vocab_size, text.context_length, text.width) == (VOCAB_SIZE, context_length, 192)
    assert (text.num_unimodal_layers, text.num_multimodal_layers, text.num_heads) == (2, 1, 3)
    assert (text.mlp_width, config.embed_dim, config.num_caption_queries) == (768, 192, 7)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats(tmp_path, tensors, suffix):
    found = read_open_clip(saved(tmp_path, tensors, name=f"weights{suffix}"))
    back = to_open_clip(found.weights, found.config)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    assert not list(tmp_path.glob("*.part"))


def test_the_format_before_zip(tmp_path, tensors):
    path = tmp_path / "old.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert len(read_open_clip(path).report.used) == len(tensors)


def test_a_training_checkpoint(tmp_path, tensors):
    path = tmp_path / "epoch_3.pt"
    prefixed = {f"module.{name}": tensor for name, tensor in tensors.items()}
    prefixed["module.text.attn_mask"] = torch.zeros(13, 13)
    state = {"step": torch.tensor(3), "exp_avg": torch.zeros(2)}
    torch.save({"epoch": 3, "name": "run", "state_dict": prefixed, "optimizer": state, "scaler": {}}, path)
    report = read_open_clip(path).report
    assert report.ignored == ["epoch", "name", "optimizer", "scaler", "text.attn_mask"]
    assert {use.theirs: use.shape for use in report.used} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    ours = {use.theirs: use.ours for use in report.used}
    assert ours["visual.proj"] == ("heads.video.weight",)
    assert ours["text_decoder.cross_attn.0.attn.in_proj_bias"] == tuple(
        f"multimodal.blocks.1.cross_attention.{part}.bias" for part in ("query", "key", "value")
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, tensors, dtype):
    half = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    found = read_open_clip(saved(tmp_path, half))
    assert {tensor.dtype for tensor in found.weights.values()} == {torch.float32}
    assert torch.equal(found.weights["unimodal.tokens.weight"], half["text.token_embedding.weight"].float())


def test_the_description_tells_the_heads(file):
    model_cfg = describe(read_open_clip(file).config)
    model_cfg["vision_cfg"] |= {"head_width": 16, "attn_pooler_heads": 4}
    model_cfg["text_cfg"]["heads"] = model_cfg["multimodal_cfg"]["heads"] = 1
    describe_beside(file, model_cfg, preprocess_cfg={"mean": [0, 0, 0]})
    found = read_open_clip(file)
    config = found.config
    assert (config.image.num_heads, config.text.num_heads, config.num_pooler_heads) == (4, 1, 4)
    assert describe(config) == model_cfg and found.preprocess_cfg == {"mean": [0, 0, 0]}


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("vision_cfg", "width", 768, "vision_cfg.width is 768, the weights beside it have 64"),
        ("vision_cfg", "image_size", 224, "vision_cfg.image_size is 224, the weights beside it have 32"),
        ("text_cfg", "context_length", 77, "text_cfg.context_length is 77, the weights beside it have 12"),
        ("multimodal_cfg", "heads", 4, "multimodal_cfg.heads is 4, the weights beside it have 2"),
        ("text_cfg", "pool_type", "eos", "text_cfg.pool_type is eos, which this package's CoCa has not"),
    ],
)
def test_a_description_of_another_model(file, section, key, value, expected):
    model_cfg = describe(read_open_clip(file).config)
    model_cfg[section][key] = value
    described = describe_beside(file, model_cfg)
    assert refusal(file) == f"{described}: {expected}"


def test_quick_gelu_is_refused(file):
    described = describe_beside(file, {"quick_gelu": True})
    assert refusal(file).startswith(f"{described}: quick_gelu is True, ")


def test_settings_that_change_nothing_are_allowed(file):
    vision_cfg = {"patch_dropout": 0.5, "timm_model_name": None}
    describe_beside(file, {"quick_gelu": False, "vision_cfg": vision_cfg})
    assert read_open_clip(file).report.missing == []


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"text_cfg": {"heads": "8"}}}',
                '{"model_cfg": {"text_cfg": 3}}', '{"model_cfg": {"vision_cfg": {"attn_pooler_heads": 7}}}']
)  # fmt: skip
def test_a_damaged_description(file, content):
    file.with_name("open_clip_config.json").write_text(content)
    refusal(file)


def test_no_whole_number_of_heads(tmp_path):
    theirs = open_clip_models.tiny()
    tensors = {
        name: tensor[..., :48] if "token_embedding" in name else tensor
        for name, tensor in theirs.state_dict().items()
    }
    assert "width 48 is no multiple of 64" in refusal(saved(tmp_path, tensors))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop("text.cls_emb"), "1 missing: text.cls_emb"),
        (lambda t: t.update({"logit_bias": torch.zeros(1)}), "1 unexpected: logit_bias"),
        (
            lambda t: t.update({"visual.ln_post.weight": torch.zeros(3)}),
            "1 of another shape: visual.ln_post.weight (3,), not (128,)",
        ),
        (
            lambda t: t.update({"visual.ln_post.weight": torch.zeros(128, dtype=torch.int8)}),
            "1 of another shape: visual.ln_post.weight torch.int8, not floating point",
        ),
        (
            lambda t: [t.pop(name) for name in list(t) if ".resblocks.0.attn" in name],
            "12 missing: text.transformer.resblocks.0.attn.in_proj_bias, "
            "text.transformer.resblocks.0.attn.in_proj_weight, "
            "text.transformer.resblocks.0.attn.out_proj.bias, ...",
        ),
        (
            lambda t: t.update({"visual.conv1.weight": torch.zeros(64, 192)}),
            "visual.conv1.weight has 2 dimensions, not 4: (64, 192)",
        ),
        (
            lambda t: t.update({"visual.positional_embedding": torch.zeros(16, 64)}),
            "visual.positional_embedding has 16 rows, not one for the class token and a square grid",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, tensors, change, expected):
    tensors = dict(tensors)
    change(tensors)
    assert refusal(saved(tmp_path, tensors)) == f"not a CoCa of open_clip's: {expected}"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["visual.proj", "text_projection", "token_embedding.weight"], "a CLIP model, not CoCa"),
        (["patch_embed.proj.weight", "blocks.0.norm1.weight"], "a ViT of timm, not CoCa"),
        (["vit.embeddings.cls_token"], "a ViT of transformers, not CoCa"),
        (["vision_model.post_layernorm.bias", "text_model.x"], "a CLIP model of transformers, not CoCa"),
        (["image_encoder.class_token"], "a coca_video checkpoint's weights: give its folder"),
    ],
)
def test_other_models_are_recognised(tmp_path, names, expected):
    message = refusal(saved(tmp_path, {name: torch.zeros(2, 2) for name in names}))
    assert re.match(r"not a CoCa of open_clip's: [89] of the 9 tensors that tell its sizes are miss", message)
    assert message.endswith(expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: replace(c, image=replace(c.image, style=ImageStyle.coca)), "image.style coca"),
        (lambda c: replace(c, image=replace(c.image, stem=Stem.conv)), "image.stem conv, only for patch"),
        (lambda c: replace(c, text=replace(c.text, style=TextStyle.coca)), "text.style coca"),
        (lambda c: replace(c, text=replace(c.text, mlp_width=128)), "text.mlp_width 128, only for 512"),
        (lambda c: replace(c, poolers=PoolerStyle.cascade), "poolers cascade, only for shared"),
        (lambda c: replace(c, embed_dim=64), "embed_dim 64, only for 128"),
    ],
)
def test_models_that_have_no_place_there(tensors, change, expected):
    config = change(infer_config(tensors))
    with pytest.raises(ValueError, match=f"open_clip's CoCa has no place for {expected}"):
        export_open_clip(config, {})


def test_an_adaptors_weights_have_no_place_there(tensors):
    config = infer_config(tensors)
    weights = from_open_clip(tensors, config) | {"temporal.positions.table": torch.zeros(4, 64)}
    with pytest.raises(ValueError, match="no place for 1 tensors: temporal.positions.table"):
        export_open_clip(config, weights)


def test_expected_shapes(tensors):
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert expected_shapes(infer_config(tensors)) == shapes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_half_downloaded_file(tmp_path, tensors, suffix, share):
    path = saved(tmp_path, tensors, name=f"weights{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path, read_tensors).startswith("is cut short")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_half_downloaded_file_before_zip(tmp_path, tensors, share):
    path = tmp_path / "old.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert refusal(path, read_tensors).startswith("is cut short")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page"),
        (b'{"error": "not found"}', "is JSON, not weights"),
        (b"PK\x03\x04", "is cut short"),
        (b"something else", "is neither a safetensors file nor one of torch.save"),
    ],
)
def test_no_weights_at_all(tmp_path, content, expected):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert refusal(path, read_tensors).startswith(expected)


class Malicious:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_that_would_run_code(tmp_path, protocol):
    path = tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps({"a": Malicious(tmp_path / "trace")}, protocol=protocol))
    assert "would run code when read" in refusal(path, read_tensors)
    assert os.listdir(tmp_path) == ["weights.bin"]


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_torch_file_that_would_run_code(tmp_path, is_zip):
    path = tmp_path / "weights.pt"
    content = {"a": torch.zeros(2), "b": Malicious(tmp_path / "trace")}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    assert refusal(path, read_tensors) == f"would run code when read ({os.mkdir.__module__}.mkdir): refused"
    assert os.listdir(tmp_path) == ["weights.pt"]


def test_a_file_with_objects(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"args": argparse.Namespace(lr=1)}, path)
    assert refusal(path, read_tensors) == "would run code when read (argparse.Namespace): refused"


def test_a_torch_file_under_the_name_of_safetensors(tmp_path, tensors):
    saved(tmp_path, tensors, name="weights.pt").rename(tmp_path / "weights.safetensors")
    assert "no safetensors file" in refusal(tmp_path / "weights.safetensors", read_tensors)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_torchscript_archive(tmp_path):
    path = tmp_path / "weights.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    assert "TorchScript archive holds code" in refusal(path, read_tensors)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([torch.zeros(2)], "holds no named tensors but list"),
        ({}, "holds no named tensors but dict"),
        ({"epoch": 3}, "holds int at epoch, only named tensors are allowed"),
        ({"state_dict": {"b": "text"}}, "holds str at b, only named tensors are allowed"),
    ],
)
def test_a_torch_file_of_something_else(tmp_path, content, expected):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert refusal(path, read_tensors) == expected


def test_an_empty_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({}, path)
    assert "9 of the 9 tensors" in refusal(path)
