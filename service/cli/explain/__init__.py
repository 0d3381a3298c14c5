"""``tubelet explain``: what a model looked at in a video, as a page, a video, a picture and arrays."""
