"""Tone mapping from HDR to SDR.

The signal becomes light (ITU-R BT.2100: PQ; HLG as on a display of 1,000 cd/m²). Light that SDR cannot show
is compressed (BT.2390: the EETF of the largest component scales all three, so that hues stay). Primaries
become those of BT.709 (BT.2407: by matrix, clipped). Light becomes the signal of an SDR display (BT.1886).
SDR's white is HDR's reference white (BT.2408). Light is in cd/m².
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc

_WHITE = 203.0
_PEAK = 1000.0  # brighter light becomes white: most HDR is graded for this
_PQ_PEAK = 10_000.0

# BT.2100, table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100, table 5.
_A = 0.17883277
_B, _C = 1 - 4 * _A, 0.5 - _A * np.log(4 * _A)
_SYSTEM_GAMMA = 1.2
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)

# BT.2407; each column makes one component of BT.709.
_TO_BT709 = np.array(
    [[1.6605, -0.1246, -0.0182], [-0.5876, 1.1329, -0.1006], [-0.0728, -0.0083, 1.1187]], np.float32
)
_SDR_GAMMA = 2.4
_STEPS = 1 << 16  # entries of the tables that are indexed by light

ToneMap = Callable[[np.ndarray], np.ndarray]
"""A function of (H, W, 3) uint8 pixels in HDR to the same in SDR."""


def tone_map_for(frame: VideoFrame) -> ToneMap | None:
    """Return the tone map that turns the frame's RGB into SDR; None if the frame is SDR."""
    return _TONE_MAPS.get(frame.color_trc)


def _pq_to_sdr(pixels: np.ndarray) -> np.ndarray:
    """Map PQ to SDR: (H, W, 3) uint8 -> the same shape."""
    return _light_to_sdr(_pq_light().take(pixels), np.float32(1))


def _hlg_to_sdr(pixels: np.ndarray) -> np.ndarray:
    """Map HLG to SDR: (H, W, 3) uint8 -> the same shape."""
    scene = _hlg_light().take(pixels)  # of 1
    luminance = scene @ _LUMINANCE
    return _light_to_sdr(scene, _PEAK * luminance ** np.float32(_SYSTEM_GAMMA - 1))


# By transfer characteristic; the primaries of both are BT.2020's by definition.
_TONE_MAPS: dict[int, ToneMap] = {ColorTrc.SMPTE2084: _pq_to_sdr, ColorTrc.ARIB_STD_B67: _hlg_to_sdr}


def _light_to_sdr(part: np.ndarray, unit: np.ndarray | np.float32) -> np.ndarray:
    """Map BT.2020 light, ``part`` (H, W, 3) times ``unit`` of each pixel (H, W), to SDR (H, W, 3) uint8."""
    largest = np.maximum(np.maximum(part[..., 0], part[..., 1]), part[..., 2]) * unit
    gain = _gains().take((largest * ((_STEPS - 1) / _PQ_PEAK)).astype(np.uint16)) * unit
    shown = part @ _TO_BT709
    shown *= gain[..., None]
    np.clip(shown, 0, 1, out=shown)
    shown *= _STEPS - 1
    return _sdr_signals().take(shown.astype(np.uint16))


@cache
def _pq_light() -> np.ndarray:
    """Return the light of each 8-bit PQ value: -> (256,) float32."""
    return _pq_eotf(np.arange(256) / 255).astype(np.float32)


@cache
def _hlg_light() -> np.ndarray:
    """Return the scene light of each 8-bit HLG value, from 0 to 1: -> (256,) float32."""
    signal = np.arange(256) / 255
    dark, bright = signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12
    return np.where(signal <= 0.5, dark, bright).astype(np.float32)


@cache
def _gains() -> np.ndarray:
    """Return the gain of a pixel for each light of its largest component, in parts of SDR's white per cd/m².

    -> (_STEPS,) float32 for light from 0 to _PQ_PEAK.
    """
    light = np.linspace(0, _PQ_PEAK, _STEPS)[1:]
    gains = _eetf(light) / light / _WHITE
    return np.concatenate([gains[:1], gains]).astype(np.float32)


@cache
def _sdr_signals() -> np.ndarray:
    """Return the 8-bit SDR signal of light in parts of white: -> (_STEPS,) uint8."""
    return np.rint(255 * np.linspace(0, 1, _STEPS) ** (1 / _SDR_GAMMA)).astype(np.uint8)


def _eetf(light: np.ndarray) -> np.ndarray:
    """Compress light from 0.._PEAK to 0.._WHITE by BT.2390's EETF."""
    white, peak = _pq_signal(np.array([_WHITE, _PEAK]))
    largest = white / peak
    knee = 1.5 * largest - 0.5
    signal = np.minimum(_pq_signal(light) / peak, 1)
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee
    spline += (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * largest
    return _pq_eotf(np.where(signal < knee, signal, spline) * peak)


def _pq_eotf(signal: np.ndarray) -> np.ndarray:
    """Convert a PQ signal (0 to 1) to light."""
    power = signal ** (1 / _M2)
    return _PQ_PEAK * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _pq_signal(light: np.ndarray) -> np.ndarray:
    """Convert light to a PQ signal (0 to 1)."""
    power = (light / _PQ_PEAK) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
