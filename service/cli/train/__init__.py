"""``tubelet train``: a model of the user's own labelled clips."""
