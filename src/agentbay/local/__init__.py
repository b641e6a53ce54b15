"""The embedded runtime. Kept empty: the zygote imports this package and must start in milliseconds."""
