import pytest
import shared_losses
from processes import in_processes


@pytest.mark.parametrize("num_processes", [2, 4])
def test_blocks_travel_past_every_process(num_processes, tmp_path):
    works = (shared_losses.ring_in_tiles, shared_losses.a_ring_holds_a_block)
    in_processes(tmp_path, *works, num_processes=num_processes)
