"""What trainers read: clips, pairs of pictures, windows, and how they are varied."""
