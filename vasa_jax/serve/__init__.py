"""Live talking over the network: protocol, server, page, and a client that needs no JAX."""
