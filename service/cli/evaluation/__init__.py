"""``tubelet evaluate``: measures a model's accuracy on labelled videos."""
