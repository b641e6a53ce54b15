"""Import paths of older releases of the published client."""
