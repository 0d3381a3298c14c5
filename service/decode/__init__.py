"""Decoding of videos into unit frames, in sandboxed processes: the only place that parses clients' bytes.

    pool     the parent's side: worker processes, their limits, and the sessions that requests hold on them
    worker   the worker process: fork server, sandbox, and the loop that probes and decodes videos
    frames   decoding of exactly the frames that a plan asks for, assembled into units
    probe    metadata, packet statistics and key frames of a video, before any frame of it is decoded
    pixels   conversion of a decoded frame into RGB of the model's size
    demux    containers, streams, packets and time stamps, through PyAV

``limits``, ``protocol`` and ``prctl`` are shared by both sides. The parent never imports PyAV; a worker never
imports torch or gRPC.
"""
