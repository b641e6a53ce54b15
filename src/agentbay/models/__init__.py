"""Parameters and results, one file per subject."""
