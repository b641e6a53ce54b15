"""The embedded runtime, whose package stays empty so that zygotes start fast."""
