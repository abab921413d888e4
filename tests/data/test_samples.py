import pytest
import torch

from coca_video.data.samples import Batch, Sample, collate, pad_frames, text_hash
from coca_video.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a red ball", "a blue ball"] * 3, vocab_size=270)


def clip(num_frames: int, value: int) -> torch.Tensor:
    return torch.full((num_frames, 3, 4, 6), value, dtype=torch.uint8)


@pytest.mark.parametrize(
    "frames, found",
    [
        (torch.zeros(2, 3, 4, 6), r"torch.float32 \(2, 3, 4, 6\)"),
        (torch.zeros(3, 4, 6, dtype=torch.uint8), r"torch.uint8 \(3, 4, 6\)"),
        (torch.zeros(2, 4, 6, 3, dtype=torch.uint8), r"torch.uint8 \(2, 4, 6, 3\)"),
    ],
)
def test_a_sample_names_itself_and_what_is_wrong(frames, found):
    with pytest.raises(ValueError, match=f"a.mp4: frames must be uint8 't c h w' with c = 3, got {found}"):
        Sample(frames, "text", "a.mp4")


def test_a_sample_needs_a_frame():
    with pytest.raises(ValueError, match="a.mp4: a sample needs at least one frame"):
        Sample(clip(0, 0), "text", "a.mp4")


def test_pad_frames():
    frames, mask = pad_frames([clip(1, 5), clip(3, 7)])
    assert frames.dtype == torch.uint8 and frames.shape == (2, 3, 3, 4, 6)
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    assert frames[:, :, 0, 0, 0].tolist() == [[5, 0, 0], [7, 7, 7]]


def test_collate(tokenizer):
    texts = ["a red ball", "a blue ball", "a red ball", "🙂", "a blue ball"]
    samples = [Sample(clip(1 + i % 2, i), text, f"key {i}") for i, text in enumerate(texts)]
    batch = collate(samples, tokenizer, max_length=5)
    assert len(batch) == 5 and batch.keys == ["key 0", "key 1", "key 2", "key 3", "key 4"]
    assert batch.groups.dtype == torch.int64
    same = batch.groups.unsqueeze(0) == batch.groups.unsqueeze(1)
    assert same.int().argmax(dim=1).tolist() == [0, 1, 0, 3, 1]  # the first of each text's
    assert batch.frame_mask.sum(dim=1).tolist() == [1, 2, 1, 2, 1]
    assert batch.frames[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    for text, ids, mask in zip(texts, batch.ids, batch.text_mask):
        assert ids[mask].tolist() == tokenizer.encode(text, max_length=5)
        assert ids[mask][-1] == tokenizer.end


def test_a_texts_group_is_the_same_in_every_process_and_batch(tokenizer):
    """So that the processes of a distributed run, or a later run, speak of the same groups."""
    texts = ["🙂", "a red ball"]
    assert [text_hash(text) for text in texts] == [-5111574283673233481, -6139722701566060474]
    samples = [Sample(clip(1, 0), text, "key") for text in texts]
    for order in (samples, samples[::-1]):
        groups = collate(order, tokenizer, max_length=9).groups.tolist()
        assert groups == [text_hash(sample.text) for sample in order]


def test_to_moves_every_tensor(tokenizer):
    batch = collate([Sample(clip(1, 0), "a red ball", "key")], tokenizer, max_length=9)
    moved = batch.to(torch.device("meta"))
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 5 and all(tensor.is_meta for tensor in tensors)
    assert moved.keys == ["key"] and not batch.frames.is_meta


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"frame_mask": torch.ones(2, 2, dtype=torch.bool)}, r"frame_mask must be \(2, 3\), got \(2, 2\)"),
        ({"text_mask": torch.ones(2, 6, dtype=torch.bool)}, r"text_mask must be \(2, 5\), got \(2, 6\)"),
        ({"groups": torch.zeros(3, dtype=torch.long)}, r"groups must be \(2,\), got \(3,\)"),
        ({"keys": ["one"]}, "2 clips, but 2 texts and 1 keys"),
        (
            {"ids": torch.ones(1, 5, dtype=torch.long), "text_mask": torch.ones(1, 5, dtype=torch.bool)},
            "2 clips, but 1 texts and 2 keys",
        ),
    ],
)
def test_a_batch_whose_parts_do_not_fit_is_refused(wrong, message):
    parts = {
        "frames": torch.zeros(2, 3, 3, 4, 6, dtype=torch.uint8),
        "frame_mask": torch.ones(2, 3, dtype=torch.bool),
        "ids": torch.ones(2, 5, dtype=torch.long),
        "text_mask": torch.ones(2, 5, dtype=torch.bool),
        "groups": torch.zeros(2, dtype=torch.long),
        "keys": ["one", "two"],
    }
    Batch(**parts)
    with pytest.raises(ValueError, match=message):
        Batch(**(parts | wrong))


@pytest.mark.parametrize(
    "tokens, found",
    [
        (torch.zeros(2, 3, 4, dtype=torch.long), r"torch.int64 \(2, 3, 4\)"),
        (torch.zeros(2, 3), r"torch.float32 \(2, 3\)"),
    ],
)
def test_tokens_are_checked_too(tokens, found):
    with pytest.raises(ValueError, match=f"a.mp4: tokens must be float 't n d', got {found}"):
        Sample(None, "text", "a.mp4", tokens=tokens)


def test_frames_or_tokens_but_not_both():
    tokens = torch.zeros(1, 2, 3)
    for both in ({"frames": None}, {"frames": clip(1, 0), "tokens": tokens}):
        with pytest.raises(ValueError, match="a.mp4: a sample holds either frames or tokens"):
            Sample(**both, text="text", key="a.mp4")
    mask, ids = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.long)
    for both in ({"frames": None}, {"frames": clip(1, 0).unsqueeze(0), "tokens": tokens.unsqueeze(0)}):
        with pytest.raises(ValueError, match="a batch holds either frames or tokens"):
            Batch(**both, frame_mask=mask, ids=ids, text_mask=mask, groups=ids[0], keys=["a.mp4"])


def test_collated_tokens(tokenizer):
    lengths = [1, 3]
    samples = [
        Sample(None, "a red ball", f"{t}", tokens=torch.full((t, 2, 4), float(t), dtype=torch.bfloat16))
        for t in lengths
    ]
    batch = collate(samples, tokenizer, max_length=9)
    assert len(batch) == 2 and batch.frames is None and batch.tokens.dtype == torch.bfloat16
    assert batch.tokens[:, :, 1, 2].tolist() == [[1, 0, 0], [3, 3, 3]]
    assert batch.frame_mask.tolist() == [[True, False, False], [True, True, True]]
    moved = batch.to(torch.device("meta"))
    assert moved.frames is None and moved.tokens.is_meta


def test_a_task_s_samples(tokenizer):
    """Prompts and targets beside the texts; a prompt's tokens do not depend on the text behind it."""
    targets = [torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])]
    prompts, texts = ["a red", "a"], ["ball", "blue ball"]
    samples = [
        Sample(clip(1, 0), text, "key", prompt=prompt, target=target)
        for text, prompt, target in zip(texts, prompts, targets)
    ]
    batch = collate(samples, tokenizer, max_length=12)
    assert torch.equal(batch.targets, torch.stack(targets))
    for row, prompt, text in zip(range(2), prompts, texts):
        begin = tokenizer.encode(prompt, max_length=12)[:-1]
        assert batch.ids[row][batch.prompt_mask[row]].tolist() == begin
        assert tokenizer.decode(batch.ids[row][batch.text_mask[row]]) == f"{prompt} {text}"
    moved = batch.to(torch.device("meta"))
    assert moved.targets.is_meta and moved.prompt_mask.is_meta
    without = collate([Sample(clip(1, 0), "a red ball", "key")], tokenizer, max_length=12)
    assert without.prompt_mask is None and without.targets is None


def test_a_prompt_s_mask_has_the_texts_shape(tokenizer):
    sample = Sample(clip(1, 0), "ball", "key", prompt="a red", target=torch.tensor(1))
    batch = collate([sample], tokenizer, max_length=12)
    with pytest.raises(ValueError, match=r"prompt_mask must be \(1, \d+\), got \(1, 1\)"):
        Batch(**vars(batch) | {"prompt_mask": batch.prompt_mask[:, :1]})
