"""Speech to features at 25 frames a second, and the small encoder trained on them."""
