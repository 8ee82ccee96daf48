"""How programs are compiled, kept between processes, and for which device they are written."""
