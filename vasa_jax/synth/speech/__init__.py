"""Speech that says when each phoneme is, and the mouth that belongs to it."""
