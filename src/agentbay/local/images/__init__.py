"""Images: root file systems that sessions run, in a store of shared layers."""
