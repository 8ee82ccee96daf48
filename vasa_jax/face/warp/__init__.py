"""The lite face: a portrait warped by the head, painted where it shows nothing."""
