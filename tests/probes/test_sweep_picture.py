from coca_video.probes.sweep_picture import CELL, COLOURS, NOTHING, sweep_picture

VALUES = {(0.1, 0.0): 50.0, (0.1, 0.5): 75.0, (1.0, 0.0): 60.0, (1.0, 0.5): None}


def picture(values=VALUES):
    axes = {"rows": ("lr", [0.1, 1.0]), "columns": ("weight_decay", [0.0, 0.5])}
    return sweep_picture(values, **axes, chosen=(0.1, 0.5), title="a title")


def colours(image) -> list[list[tuple]]:
    """Of each cell, near a corner of it."""
    width, height = image.size
    left, top = width - 10 - 2 * CELL[0], height - 10 - 2 * CELL[1]
    places = [[(left + j * CELL[0] + 8, top + i * CELL[1] + 8) for j in range(2)] for i in range(2)]
    return [[image.getpixel(place) for place in row] for row in places]


def test_cells_are_the_lighter_the_better():
    (worst, best), (middle, missing) = colours(picture())
    ends = [tuple(int(x) for x in COLOURS[i]) for i in (0, -1)]
    assert (worst, best, missing) == (ends[0], ends[1], NOTHING)
    assert sum(worst) < sum(middle) < sum(best)


def test_equal_values_and_the_chosen_cell():
    image = picture(dict.fromkeys(VALUES, 3.0))
    assert {cell for row in colours(image) for cell in row} == {tuple(int(x) for x in COLOURS[-1])}
    assert (
        (255, 0, 0) in image.get_flattened_data() if hasattr(image, "get_flattened_data") else image.getdata()
    )
