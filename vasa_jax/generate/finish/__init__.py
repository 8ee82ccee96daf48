"""What is done to a motion after the model, alike offline and live."""
