import torch
import torch.nn.functional as F

from coca_video.checkpoint import load_checkpoint
from coca_video.evaluation.embedding import encode_texts
from coca_video.evaluation.zero_shot import class_embeddings, top_k_figures

CPU = torch.device("cpu")


def test_a_class_is_the_mean_of_its_prompts(image_run):
    checkpoint = load_checkpoint(image_run)
    templates = ["person {}", "man {} fast"]
    found = class_embeddings(checkpoint, ["running", "rowing boat", "juggling"], templates, device=CPU)
    assert found.shape == (3, 12)
    for name, row in zip(("running", "rowing boat", "juggling"), found):
        prompts = encode_texts(checkpoint, [f"person {name}", f"man {name} fast"], device=CPU)
        torch.testing.assert_close(row, F.normalize(prompts.mean(dim=0), dim=0), atol=1e-5, rtol=1e-4)


def test_one_template_is_the_prompt_itself(image_run):
    checkpoint = load_checkpoint(image_run)
    found = class_embeddings(checkpoint, ["fox", "star"], ["{}"], device=CPU)
    torch.testing.assert_close(found, encode_texts(checkpoint, ["fox", "star"], device=CPU))


def test_top_k():
    """Six classes; the labels stand first, third, last, and first with a tie, which counts against."""
    similarity = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.3, 0.4, 0.5],
            [0.9, 0.8, 0.7, 0.3, 0.4, 0.5],
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
            [0.9, 0.9, 0.7, 0.6, 0.5, 0.4],
        ]
    )
    assert top_k_figures(similarity, torch.tensor([0, 2, 5, 1])) == {"top1": 25.0, "top5": 75.0}
