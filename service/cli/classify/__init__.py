"""``tubelet classify``: labels of videos, as text and as JSON."""
