"""Every public data set that this package can read, and the two ways to bring one's own, by name."""

from coca_video.data.benchmarks import (
    activitynet,
    coco_captions,
    conceptual_captions,
    didemo,
    hmdb51,
    imagenet,
    karpathy,
    kinetics,
    moments,
    msrvtt,
    msvd,
    nlvr2,
    nocaps,
    objectnet,
    own,
    snli_ve,
    ssv2,
    ucf101,
    vatex,
    video_qa,
    vqa,
    youcook2,
)
from coca_video.data.benchmarks.listing import PublicSet

FAMILIES = (
    *(kinetics, moments, ucf101, hmdb51, ssv2),
    *(msrvtt, activitynet, didemo, vatex, msvd, youcook2),
    *(imagenet, objectnet, karpathy, coco_captions, nocaps, conceptual_captions),
    *(vqa, snli_ve, nlvr2, video_qa),
    own,
)
SETS: dict[str, PublicSet] = {each.name: each for family in FAMILIES for each in family.SETS}
