"""What ``bench`` and ``inspect`` compute: traffic, floors, runs."""
