"""The reduced morphable head: posed, fitted, rasterised, read from landmarks."""
