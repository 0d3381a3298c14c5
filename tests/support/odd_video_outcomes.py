"""The expected outcome of every odd clip: decoded, decoded with warnings, or rejected with a reason."""

from tests.support.videos import VIDEOS

ODD = VIDEOS / "odd"
FILES = sorted(str(path.relative_to(ODD)) for path in ODD.rglob("*") if path.is_file())

_REFUSED = {
    "NOT_A_VIDEO": """
        androidx/100kB-garbage-prefix.mp3 corpus/bogus.ogv corpus/bug498855-1.ogv corpus/bug504613.ogv
        corpus/bug506094.ogv corpus/moz_bug1079747.mp4 corpus/new.avi corpus/threeframes-end.gif
        moviepy/result.webm pointers/annex_link.mp4 small/small_mp3.mp3""",
    "NO_VIDEO_STREAM": """
        androidx/sample_audio_only.mp4 androidx/sample_fixed_rechunk_no_elst.mp4 corpus/mopt_1.mp4
        corpus/mopt_40.mp4 corpus/mopt_7.mp4 corpus/moz_small-shot-mp3.mp4
        corpus/moz_test-a-128k-44100Hz-1ch.mp4 corpus/sample.mpeg fate/Owner-iTunes_9.0.3.15.mp4
        mp4ff/iamf.mp4 small/small_Mpeg4.mp4 small/small_mp4-with-audio.mp4 small/small_wav.wav
        torchcodec/nasa_13013.mp4.audio.mp3""",
    "CORRUPT_VIDEO": """
        androidx/video_init.mp4 corpus/bug499519.ogv corpus/bug504843.ogv
        corpus/e34116d68f49c7852b362ec72a636df5.gif corpus/moz_0-timescale.mp4
        mp4ff/init1.cmfv small/small_AudioVideoInterleave.avi
        small/small_WindowsMediaVideo.wmv""",
    # encrypted
    "UNSUPPORTED_VIDEO": """
        corpus/moz_short-cenc.mp4 mp4ff/complseg-1.0001.mp4 mp4ff/prog_8s_enc_dashinit.mp4""",
}
REFUSED = {name: reason for reason, names in _REFUSED.items() for name in names.split()}

REAL = sorted(str(path.relative_to(VIDEOS)) for path in (VIDEOS / "real").rglob("*") if path.is_file())
DECODED = [f"odd/{name}" for name in FILES if name not in REFUSED]

# Files decoded with a warning that contains the key; all other files decode without warnings.
_WARNED = {
    # a garbage time stamp of 300 million years
    "the timestamps jump": "corpus/bug498380.ogv corpus/bug523816.ogv",
    "packets are marked as corrupt": """
        fate/catfight-cvid-pal8-partial.mp4 fate/demo.mp4 fate/displaymatrix.mp4""",
    "the header says": """
        corpus/bug523816.ogv fate/catfight-cvid-pal8-partial.mp4 fate/demo.mp4 fate/displaymatrix.mp4
        mp4ff/v300_multiple_segments.mp4""",
    "decoded frames end at": """
        corpus/npot-video.theora.ogv corpus/red-green.theora.ogv
        fate/HCAFF1_HHI.264""",
    "the stream states no frame rate": """
        corpus/BA_MW_D_IDR_LOST.264 corpus/BA_MW_D_P_LOST.264 corpus/CAMA3_Sand_E.264 corpus/Error_I_P.264
        corpus/MPS_MW_A.264 corpus/baseline3_q51_32x18_min.264 corpus/sp2_bt_b.h264
        fate/FRExt3_Panasonic.avc fate/HCAFF1_HHI.264 fate/HCAMFF1_HHI.264 fate/freh3.264""",
    "frames are damaged": """
        corpus/Error_I_P.264 fate/empty_edit_5s.mp4 fate/mov-frag-encrypted.mp4""",
    "part of the video is encrypted": "fate/mov-frag-encrypted.mp4",
}
WARNINGS = frozenset(_WARNED)
WARNED = {name: {kind for kind in WARNINGS if name in _WARNED[kind].split()} for name in FILES}
