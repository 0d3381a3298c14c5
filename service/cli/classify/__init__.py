"""``tubelet classify``: labels of videos as text or JSON."""
