"""From speech to motion and from motion to frames: the rolling step, its scan, the talker."""
