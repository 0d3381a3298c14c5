"""The HTML pages of answers that commands write, with the videos in them."""
