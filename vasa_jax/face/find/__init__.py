"""Where faces are in a picture, cut out squarely, and whose they are."""
