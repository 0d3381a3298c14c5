"""The data of a training: clips or parts of videos, with labels and scenes, read and checked."""
