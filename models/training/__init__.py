"""How the embedded camera-motion models were made, and how to make one.

python -m tubelet.models.training camera-motion --videos DIR
    train; stop and go on at will
python -m tests.bench.camera_moves --videos DIR --out runs/moves-test
    render moves over the held-out scenes
python -m tubelet.models.training evaluate --videos DIR --clips runs/moves-test
    measure
python -m tubelet.models.training publish
    write weights and card into the zoo

A clip's way: ``data.sources`` decodes it once, ``data.scene_split`` splits by scene,
``simulation.camera_path`` makes a path and its label, ``simulation.render`` looks along the path,
``simulation.degradations`` and ``simulation.symmetries`` vary what is seen, ``data.dataset`` makes batches.
With glibc, MALLOC_MMAP_MAX_=0 and MALLOC_ARENA_MAX=1 in the environment make steps faster: large buffers are
then reused rather than mapped and zeroed at each step.
"""
