"""Live streams: sound in at any pace, frames out on the sound's clock."""
