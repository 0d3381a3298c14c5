"""Train, measure and publish the embedded camera-motion models.

python -m tubelet.service.cli.training camera-motion --videos DIR
    train; run again to resume from the last checkpoint
python -m tests.bench.camera_moves --videos DIR --out runs/moves-test
    render moves over the held-out scenes
python -m tubelet.service.cli.training evaluate --videos DIR --clips runs/moves-test
    measure
python -m tubelet.service.cli.training publish
    write weights and card into the zoo
python -m tubelet.service.cli.training study --videos DIR
    measure what small models are worth by the data that they are trained on; run again to resume

``feed`` reads clips in sandboxed workers, ``scene_split`` divides them by scene, ``sources`` keeps what the
simulated camera films. ``tubelet.models.training`` trains on that.
With glibc, MALLOC_MMAP_MAX_=0 and MALLOC_ARENA_MAX=1 in the environment make steps faster: large buffers are
then reused rather than mapped and zeroed at each step.
"""
