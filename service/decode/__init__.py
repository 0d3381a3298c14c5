"""Videos into unit frames, in a pool of worker processes: the only place where a client's bytes are parsed.

``pool.DecodePool`` is the parent's side. ``forkserver`` is the main module of the process that workers are
forked of, ``worker`` what they do; what these import besides (``probe``, ``frames``, ``container``,
``pixels``, ``sandbox``) is never imported by the parent, and they import neither torch nor grpc. ``protocol``
and ``clock`` are pure.
"""
