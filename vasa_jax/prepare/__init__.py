"""From recordings of real people to clips to train on."""
