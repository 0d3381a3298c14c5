"""``tubelet evaluate``: a model's accuracy on labelled videos."""
