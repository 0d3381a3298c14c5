"""What a training says: figures, text, JSON, card and page."""
