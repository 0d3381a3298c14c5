"""The precisions of a device, and what is said of one that it lacks."""

import json
import os
import platform
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.support.cli_process import tubelet
from tests.support.precisions import CPU, needs_bf16, needs_int8
from tubelet.models.errors import UnsupportedPrecision
from tubelet.models.runtime.precision import (
    Native,
    check_int8,
    choose_dtype,
    native_precisions,
    precision_name,
)
from tubelet.service.cli.app import app
from tubelet.service.server.app import SAMPLE_CLIP

BELOW_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are those of x86")


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which oneDNN may use all that the CPU has."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    return monkeypatch


@x86
@pytest.mark.skipif("ATEN_CPU_CAPABILITY" in os.environ, reason="ATEN_CPU_CAPABILITY limits this process")
def test_native_precisions_equal_proc_cpuinfo(unlimited: pytest.MonkeyPatch) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    found = native_precisions(CPU)
    assert "fp32" in found
    assert ("bf16" in found) == bool(flags & {"avx512_bf16", "amx_tile"})
    assert ("int8" in found) == ("avx512_vnni" in flags)


@x86
@pytest.mark.parametrize("isa", BELOW_BF16)
def test_a_limit_of_onednn_takes_precisions_away(unlimited: pytest.MonkeyPatch, isa: str) -> None:
    whole = native_precisions(CPU)
    unlimited.setenv("ONEDNN_MAX_CPU_ISA", isa.lower())
    kept: set[Native] = {"fp32", "int8"} if isa == "AVX512_CORE_VNNI" else {"fp32"}
    assert native_precisions(CPU) == tuple(precision for precision in whole if precision in kept)


@pytest.mark.parametrize("isa", ["DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_AMX", "no such limit"])
def test_an_isa_limit_above_the_precisions_changes_nothing(unlimited: pytest.MonkeyPatch, isa: str) -> None:
    whole = native_precisions(CPU)
    unlimited.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert native_precisions(CPU) == whole


_NATIVE_AND_ONEDNN = """
import torch
from tubelet.models.runtime.precision import native_precisions
print("native", *native_precisions(torch.device("cpu")))
torch.ops.mkldnn._reorder_linear_weight(torch.ones(16, 16))
"""


@x86
@pytest.mark.parametrize("isa", ["AVX512_CORE_VNNI", "DEFAULT"])
def test_onednn_says_the_same_of_itself(isa: str) -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "ONEDNN_VERBOSE": "1"}
    environment.pop("ATEN_CPU_CAPABILITY", None)
    command = [sys.executable, "-c", _NATIVE_AND_ONEDNN]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    (native,) = (line.split()[1:] for line in said.splitlines() if line.startswith("native"))
    (onednn,) = (line for line in said.splitlines() if "cpu,isa:" in line)
    assert ("bf16" in native) == ("bfloat16" in onednn)
    assert ("int8" in native) == ("AVX-512" in onednn and "Intel DL Boost" in onednn)


@x86
@pytest.mark.parametrize(
    ("precision", "says"),
    [
        ("bf16", "this CPU does not multiply it natively"),
        ("int8", "this CPU has no AVX-512 VNNI to multiply it"),
    ],
)
def test_classify_refuses_a_precision_that_the_cpu_lacks(
    unlimited: pytest.MonkeyPatch, precision: str, says: str
) -> None:
    unlimited.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    unlimited.setenv("TUBELET_ENGINE__PRECISION", precision)
    unlimited.setenv("TUBELET_ENGINE__DEVICE", "cpu")
    done = CliRunner().invoke(app, ["classify", str(SAMPLE_CLIP), "--json"])
    sentence = f"engine.precision is {precision}, but {says}; it has fp32 (auto takes that)"
    assert done.exit_code == 1
    error = {"code": "INVALID_ARGUMENT", "reason": "INVALID_CONFIGURATION", "message": sentence}
    assert json.loads(done.stdout) == {"error": error}
    assert sentence in done.stderr


@x86
def test_serve_refuses_a_precision_that_the_environment_rules_out() -> None:
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "DEFAULT"}
    settings = {"TUBELET_ENGINE__PRECISION": "bf16", "TUBELET_ENGINE__DEVICE": "cpu"}
    done = tubelet("serve", "--port", "0", "--metrics-port", "0", **limits, **settings)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "this CPU does not multiply it natively; it has fp32 (auto takes that)" in done.stderr
    assert "Traceback" not in done.stderr


@x86
def test_the_sentence_names_all_that_there_is(unlimited: pytest.MonkeyPatch) -> None:
    unlimited.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    if "int8" not in native_precisions(CPU):
        pytest.skip("this CPU has no AVX-512 VNNI to multiply int8")
    with pytest.raises(UnsupportedPrecision, match=r"; it has fp32 and int8 \(auto takes fp32\)$"):
        choose_dtype("bf16", CPU)
    assert choose_dtype("int8", CPU) == torch.float32


def test_int8_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # The answers of torch on a machine with such a GPU.
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    with pytest.raises(
        UnsupportedPrecision,
        match=r"cuda:1 does not run it, only CPUs do; it has fp32 and bf16 \(auto takes bf16\)$",
    ):
        choose_dtype("int8", torch.device("cuda:1"))


def test_library_families_refuse_int8() -> None:
    check_int8("vit")
    with pytest.raises(UnsupportedPrecision, match="family torchvision"):
        check_int8("torchvision")


def test_precisions_have_dtypes_and_names() -> None:
    assert choose_dtype("fp32", CPU) == torch.float32
    assert precision_name("fp32", CPU) == "float32"
    auto = torch.bfloat16 if "bf16" in native_precisions(CPU) else torch.float32
    assert choose_dtype("auto", CPU) == auto


@needs_bf16
def test_bf16_has_a_dtype_and_a_name() -> None:
    assert choose_dtype("bf16", CPU) == torch.bfloat16
    assert precision_name("bf16", CPU) == "bfloat16"


@needs_int8
def test_int8_has_a_name() -> None:
    assert precision_name("int8", CPU) == "int8"
