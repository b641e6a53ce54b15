"""What drives a desktop from inside the sandbox, as one process of its own.

The service sends it these modules, since the files of this package are not visible in every sandbox.
"""
