"""How the embedded camera-motion models were made, and how to make one.

python -m models.training camera-motion --videos DIR                     train; stop and go on at will
python -m tests.bench.camera_moves --videos DIR --out runs/moves-test    render moves over the held-out scenes
python -m models.training evaluate --videos DIR --clips runs/moves-test  measure
python -m models.training publish                                        write weights and card into the zoo

A clip's way: ``sources`` decodes it once, ``groups`` splits by scene, ``camera`` makes a path and its label,
``render`` looks along the path, ``degrade`` and ``mirror`` vary what is seen, ``data`` collects batches.
With glibc, MALLOC_MMAP_MAX_=0 and MALLOC_ARENA_MAX=1 in the environment make steps faster: large buffers are
then reused rather than mapped and zeroed at each step.
"""
