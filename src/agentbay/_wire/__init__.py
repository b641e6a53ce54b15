"""The wire format: one class for each remote action, tool call and frame.

Client and local runtime read and write the same classes.
"""
