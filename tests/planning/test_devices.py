import pytest

from coca_video.errors import InputError
from coca_video.planning.devices import ACCELERATORS, accelerator_of, find_accelerator, peak_flops


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GH200 480GB", 990e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("Tesla V100-SXM2-32GB", 125e12),
        ("Tesla V100-PCIE-16GB", 112e12),
        ("Tesla T4", 65e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("AMD Instinct MI300X", 1307.4e12),
    ],
)
def test_names_of_torch(name, expected):
    assert peak_flops(name) == expected


@pytest.mark.parametrize(
    "name", ["", "cpu", "NVIDIA T400", "NVIDIA GeForce RTX 4090 Laptop GPU", "Quadro RTX 5000"]
)
def test_what_is_not_known_has_no_peak(name):
    assert peak_flops(name) is None


def test_users_names_are_each_their_own():
    for accelerator in ACCELERATORS:
        assert find_accelerator(accelerator.name) is accelerator is accelerator_of(accelerator.name.upper())
        assert 0 < accelerator.float32 < accelerator.bfloat16 == peak_flops(accelerator.name)


def test_an_unknown_one_is_told_the_choices():
    with pytest.raises(
        InputError, match="device=p100: not in the table; the choices are gb200, b200, .*mi250x"
    ):
        accelerator_of("p100")


def test_float32():
    assert peak_flops("NVIDIA A100-SXM4-40GB", precision="float32") == 19.5e12
