import torch
from tiny import coca, temporal_config, text_config

from coca_video.data.samples import Batch, Sample, collate
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.generate import Rules, greedy
from coca_video.metrics.ranking import retrieval_figures
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa
from coca_video.models.decoding import CachedDecoder
from coca_video.training.gradients import clip_gradients
from coca_video.training.optim import OptimizerConfig, build_optimizer, build_schedule
from coca_video.training.step import LossConfig, compute_losses

LIGHTS = {
    "the light comes on": (10, 120, 240),
    "the light goes off": (240, 120, 10),
    "dark": (20,),
    "bright": (230, 230),
}
NUM_STEPS = 200
MAX_LENGTH = 12  # ids in a text


def batch_of_lights(tokenizer: Tokenizer) -> Batch:
    """Four clips of one to three gray frames; two of them tell each other backwards."""
    samples = []
    for text, levels in LIGHTS.items():
        levels = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
        samples.append(Sample(levels.expand(-1, 3, 16, 16), text, text))
    return collate(samples, tokenizer, max_length=MAX_LENGTH)


def trained(model: CoCa, frames: torch.Tensor, batch: Batch) -> CoCa:
    config = OptimizerConfig(lr=5e-3, num_warmup_steps=20, weight_decay=0.0)
    optimizer = build_optimizer(model.train(), config)
    schedule = build_schedule(optimizer, config, num_steps=NUM_STEPS)
    for _ in range(NUM_STEPS):
        losses = compute_losses(model, frames, batch, LossConfig())
        optimizer.zero_grad()
        losses["loss"].backward()
        clip_gradients(list(model.parameters()), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def test_learns():
    """Both losses together: each clip finds its text, each text its clip, and each clip says its text."""
    tokenizer = Tokenizer.train(LIGHTS, vocab_size=290)
    batch = batch_of_lights(tokenizer)
    frames = Preprocessing().normalised(batch.frames)
    with torch.enable_grad():
        text = text_config(vocab_size=tokenizer.vocab_size)
        temporal = temporal_config(Adaptor.attentional)
        model = trained(coca(text=text, temporal=temporal), frames, batch)

    video = model.encode_video(frames, batch.frame_mask)
    similarity = video @ model.encode_text(batch.ids, batch.text_mask).T
    assert retrieval_figures(similarity)["R@1"] == 100
    assert retrieval_figures(similarity.T)["R@1"] == 100

    memory = model.pool(model.encode_frames(frames), batch.frame_mask)[0]
    decoder = CachedDecoder(model, memory, texts_per_clip=1, max_length=MAX_LENGTH)
    prompts = torch.full((len(batch), 1), tokenizer.begin)
    written = greedy(decoder, prompts, rules=Rules(end=tokenizer.end, max_length=MAX_LENGTH))
    assert [tokenizer.decode(ids) for ids in written.ids[:, 0]] == list(LIGHTS)
