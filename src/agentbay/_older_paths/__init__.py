"""Import paths of older releases of the published client, found beside the modules of `agentbay`."""
