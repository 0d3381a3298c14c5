"""Videos into unit frames, in a pool of worker processes: the only place where a client's bytes are parsed.

``pool.DecodePool`` is the parent's side. ``worker`` is the process's main module; what it imports besides
(``probe``, ``frames``, ``container``, ``pixels``) is never imported by the parent, and it imports neither
torch nor grpc. ``protocol`` and ``clock`` are pure.
"""
