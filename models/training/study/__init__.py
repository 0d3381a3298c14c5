"""The study of how much data models need: small models, trained alike on growing sets of simulated windows.

``design`` lists the models, the sizes and the runs in their order; ``windows`` renders windows for training,
validation and test once; ``run`` trains one model; ``workers`` does so in several processes; ``results``
keeps what was measured. The command is that of ``tubelet.service.cli.training``.
"""
