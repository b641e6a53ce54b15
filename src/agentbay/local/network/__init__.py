"""The way out of a sandbox: which network it has, and the proxy through which it reaches what is allowed."""
