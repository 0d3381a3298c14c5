"""Train and measure models on samples that the caller reads, and publish the embedded camera-motion models.

``samples`` has the windows and batches that ``trainer`` takes: any iterable of them.
For camera motion, ``simulation.sources`` chooses what to film, ``simulation.camera_path`` simulates a camera
path and its label, ``simulation.render`` renders the view along the path, ``simulation.degradations`` and
``simulation.symmetries`` augment it, and ``simulation.dataset`` makes batches. ``recipes`` and ``card``
describe the models; ``study`` compares small ones by the data that they are trained on. The commands are
those of ``tubelet.service.cli.training``.
"""
