"""Train, measure and publish the embedded camera-motion models.

python -m tubelet.models.training camera-motion --videos DIR
    train; run again to resume from the last checkpoint
python -m tests.bench.camera_moves --videos DIR --out runs/moves-test
    render moves over the held-out scenes
python -m tubelet.models.training evaluate --videos DIR --clips runs/moves-test
    measure
python -m tubelet.models.training publish
    write weights and card into the zoo

From clips to batches: ``data.sources`` decodes clips once, ``data.scene_split`` splits them by scene,
``simulation.camera_path`` simulates a camera path and its label, ``simulation.render`` renders the view along
the path, ``simulation.degradations`` and ``simulation.symmetries`` augment it, and ``data.dataset``
makes batches.
With glibc, MALLOC_MMAP_MAX_=0 and MALLOC_ARENA_MAX=1 in the environment make steps faster: large buffers are
then reused rather than mapped and zeroed at each step.
"""
