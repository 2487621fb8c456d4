"""What Centrifugo answers to one script, written down, and what our server answers to the same."""
