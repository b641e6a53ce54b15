"""Classes that users hold: parameters they pass in and results they get back, one file per subject."""
