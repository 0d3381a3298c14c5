"""The ``tubelet`` command: serve, classify, evaluate, models, config, demo."""
