"""Public names, by the path that the published client gives them."""
