import pytest
import torch
from tiny import noise

from coca_video.layers.positions import SpacePositions, TimePositions, resize_grid


def test_space_positions_add_one_vector_to_each_patch():
    positions, tokens = SpacePositions(4, 3), noise(2, 4, 3)
    torch.testing.assert_close(positions(tokens) - tokens, positions.table.expand(2, 4, 3))
    assert positions.table.std() > 0


def test_space_positions_follow_a_larger_picture():
    positions = SpacePositions(4, 3)
    assert positions(torch.zeros(2, 16, 3)).shape == (2, 16, 3)


def test_a_resized_grid_keeps_its_directions():
    """Column 0 of the table grows with the row, column 1 with the column, column 2 is the same everywhere."""
    size = 8
    row, column = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    table = torch.stack([row, column, torch.full_like(row, 5)], dim=-1).reshape(size**2, 3)
    for new in (4, 16):
        grid = resize_grid(table, num_patches=new**2).reshape(new, new, 3)
        torch.testing.assert_close(grid[..., 2], torch.full((new, new), 5.0))
        torch.testing.assert_close(grid[..., 0], grid[..., 1].T)
        assert (grid[..., 0].diff(dim=0) > 0).all() and grid[..., 0].diff(dim=1).abs().max() < 1e-5
        # Away from the border the centre of a new patch lies where its share of the picture lies.
        expected = (new // 2 + 0.5) * size / new - 0.5
        assert grid[new // 2, 0, 0].item() == pytest.approx(expected, abs=0.05)


def test_an_unchanged_grid_is_the_table_itself():
    table = noise(9, 2)
    assert resize_grid(table, num_patches=9) is table


@pytest.mark.parametrize("old, new", [(9, 8), (8, 9)])
def test_only_square_grids_are_resized(old, new):
    with pytest.raises(ValueError, match=f"got {old} and {new} patches"):
        resize_grid(torch.zeros(old, 2), num_patches=new)


def test_time_positions_start_at_zero():
    tokens = noise(2, 3, 4, 5)
    assert torch.equal(TimePositions(3, 5)(tokens), tokens)


@pytest.mark.parametrize(
    "num_frames, expected",
    [(2, [0.25, 3.25]), (3, [0.0, 1.0, 4.0]), (6, [0.0, 0.25, 0.75, 1.75, 3.25, 4.0])],
)
def test_time_positions_stretch_over_the_clip(num_frames, expected):
    positions = TimePositions(3, 5)
    with torch.no_grad():
        positions.table[:] = torch.tensor([0.0, 1.0, 4.0]).unsqueeze(1)
    added = positions(torch.zeros(2, num_frames, 4, 5))
    torch.testing.assert_close(added, torch.tensor(expected).view(1, -1, 1, 1).expand(2, num_frames, 4, 5))
