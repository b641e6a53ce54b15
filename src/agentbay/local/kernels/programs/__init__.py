"""Programs that run inside sandboxes, as their users; they import nothing of this package."""
