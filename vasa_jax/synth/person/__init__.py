"""A synthetic person and its picture: head, paint, hair, light, rasteriser."""
