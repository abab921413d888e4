"""What accelerators can do at most: dense products with bfloat16 inputs and float32 sums, per second.

Figures are the makers' data sheets', without sparsity. Where a sheet gives them with sparsity alone, it is
half of that. A name is what torch.cuda.get_device_name says, or the short form that users write.
"""

import re
from dataclasses import dataclass

from coca_video.errors import InputError


@dataclass(frozen=True)
class Accelerator:
    name: str  # as users write it
    pattern: str  # found, in any case, in the names of torch; the first match counts
    bfloat16: float  # FLOP/s; float16 on a card that has no bfloat16
    float32: float  # FLOP/s, without TF32, as torch computes by default


# The forms of a card stand before the card.
ACCELERATORS = (
    Accelerator("gb200", r"\bGB200\b", 2500e12, 80e12),  # NVIDIA GB200 NVL72 data sheet, a GPU's share
    Accelerator("b200", r"\bB200\b", 2250e12, 75e12),  # NVIDIA HGX B200 data sheet, an eighth
    Accelerator("gh200", r"\bGH200\b", 990e12, 67e12),  # NVIDIA GH200 data sheet
    Accelerator("h200-nvl", r"\bH200[ -]NVL\b", 835e12, 60e12),  # NVIDIA H200 data sheet
    Accelerator("h200", r"\bH200\b", 989e12, 67e12),  # NVIDIA H200 data sheet, SXM
    Accelerator("h100-nvl", r"\bH100[ -]NVL\b", 835e12, 60e12),  # NVIDIA H100 data sheet
    Accelerator("h100-pcie", r"\bH100[ -]PCIe\b", 756e12, 51e12),  # NVIDIA H100 data sheet
    Accelerator("h100", r"\bH[18]00\b", 989e12, 67e12),  # NVIDIA H100 data sheet, SXM
    Accelerator("a100", r"\bA[18]00\b", 312e12, 19.5e12),  # NVIDIA A100 data sheet
    Accelerator("a40", r"\bA40\b", 149.7e12, 37.4e12),  # NVIDIA A40 data sheet
    Accelerator("a30", r"\bA30\b", 165e12, 10.3e12),  # NVIDIA A30 data sheet
    Accelerator("a10g", r"\bA10G\b", 70e12, 35e12),  # NVIDIA A10G data sheet
    Accelerator("a10", r"\bA10\b", 125e12, 31.2e12),  # NVIDIA A10 data sheet
    Accelerator("l40s", r"\bL40S\b", 362e12, 91.6e12),  # NVIDIA L40S data sheet
    Accelerator("l40", r"\bL40\b", 181e12, 90.5e12),  # NVIDIA L40 data sheet
    Accelerator("l4", r"\bL4\b", 121e12, 30.3e12),  # NVIDIA L4 data sheet: 242 with sparsity
    Accelerator("v100-pcie", r"\bV100[ -]PCIE\b", 112e12, 14e12),  # NVIDIA V100 data sheet, float16
    Accelerator("v100", r"\bV100\b", 125e12, 15.7e12),  # NVIDIA V100 data sheet, SXM2, float16
    Accelerator("t4", r"\bT4\b", 65e12, 8.1e12),  # NVIDIA T4 data sheet, float16
    Accelerator(
        "rtx5090", r"\bRTX ?5090\b(?!.*Laptop)", 209.5e12, 104.8e12
    ),  # NVIDIA RTX Blackwell white paper
    Accelerator("rtx4090", r"\bRTX ?4090\b(?!.*Laptop)", 165.2e12, 82.6e12),  # NVIDIA Ada white paper
    Accelerator("rtx3090", r"\bRTX ?3090\b(?! Ti)", 71e12, 35.6e12),  # NVIDIA GA102 white paper
    Accelerator("mi300x", r"\bMI300X\b", 1307.4e12, 163.4e12),  # AMD Instinct MI300X data sheet
    Accelerator(
        "mi250x", r"\bMI250X\b", 191.5e12, 23.9e12
    ),  # AMD Instinct MI250X data sheet, one of its two dies
)


def find_accelerator(device_name: str) -> Accelerator | None:
    """By a name of torch or of a user; None where it is not in the table, as for a CPU."""
    for accelerator in ACCELERATORS:
        if device_name.lower() == accelerator.name or re.search(
            accelerator.pattern, device_name, re.IGNORECASE
        ):
            return accelerator
    return None


def peak_flops(device_name: str, *, precision: str = "bfloat16") -> float | None:
    """FLOP/s by a name of torch.cuda.get_device_name; precision: bfloat16 or float32."""
    accelerator = find_accelerator(device_name)
    return None if accelerator is None else getattr(accelerator, precision)


def accelerator_of(name: str) -> Accelerator:
    """Raises InputError, naming the choices, for one that is not in the table."""
    accelerator = find_accelerator(name)
    if accelerator is None:
        choices = ", ".join(accelerator.name for accelerator in ACCELERATORS)
        raise InputError(f"device={name}: not in the table; the choices are {choices}")
    return accelerator
