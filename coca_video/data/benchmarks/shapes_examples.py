"""A sheet of examples of the shapes benchmark, for people to look at."""

import textwrap

from PIL import Image, ImageDraw, ImageFont

from coca_video.data.benchmarks.shapes_balance import answer_of
from coca_video.data.manifest import ClipRecord

NUM_COLUMNS = 6
PICTURE, GAP, FONT_SIZE = 128, 12, 12  # pixels
TEXT_HEIGHT, LINE_LENGTH = 200, 38  # pixels, characters
COLUMN = 2 * PICTURE + GAP


def draw_examples(manifests: dict[str, list[ClipRecord]]) -> Image.Image:
    """A row a task: examples from all over each manifest, with their texts."""
    size = (NUM_COLUMNS * (COLUMN + GAP) + GAP, len(manifests) * (PICTURE + TEXT_HEIGHT + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    for row, (task, records) in enumerate(manifests.items()):
        for column, record in enumerate(records[:: -(-len(records) // NUM_COLUMNS)]):
            place = GAP + column * (COLUMN + GAP), GAP + row * (PICTURE + TEXT_HEIGHT + GAP)
            _draw_example(sheet, record, task, place)
    return sheet


def _draw_example(sheet: Image.Image, record: ClipRecord, task: str, place: tuple[int, int]) -> None:
    left, top = place
    for side, path in enumerate(filter(None, (record.path, record.second_path))):
        with Image.open(path) as picture:
            larger = picture.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)
        sheet.paste(larger, (left + side * (PICTURE + GAP), top))
    said = record.texts if task == "captions" else [record.text, f"-> {answer_of(record)}"]
    lines = [line for text in said for line in textwrap.wrap(text, LINE_LENGTH, subsequent_indent="   ")]
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(sheet).multiline_text((left, top + PICTURE + 4), "\n".join(lines), "black", font)
