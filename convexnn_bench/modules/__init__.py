"""A user's own torch network: read as a point of a training problem, and certified."""
