"""Marks for tests of precisions that not every CPU multiplies natively."""

import pytest
import torch

from tubelet.models.runtime.precision import native_precisions

CPU = torch.device("cpu")
NATIVE = native_precisions(CPU)

needs_bf16 = pytest.mark.skipif("bf16" not in NATIVE, reason="this CPU does not multiply bf16 natively")
needs_int8 = pytest.mark.skipif("int8" not in NATIVE, reason="this CPU has no AVX-512 VNNI to multiply int8")

DTYPES = [
    pytest.param(torch.float32, id="fp32"),
    pytest.param(torch.bfloat16, id="bf16", marks=needs_bf16),
]
