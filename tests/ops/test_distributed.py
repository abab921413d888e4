import torch
from processes import gather_rows, gather_unequally_many_rows, in_processes
from tiny import noise

from coca_video.ops.distributed import gather, num_processes, own_rows


def test_gathered_rows_and_their_gradients(tmp_path):
    in_processes(tmp_path, gather_rows, gather_unequally_many_rows)


def test_a_process_alone_has_everything():
    x = noise(3, 5)
    assert num_processes() == 1 and torch.equal(gather(x), x) and torch.equal(own_rows(x), x)
