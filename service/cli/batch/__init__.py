"""The command ``tubelet batch``."""
