"""What travels: one class per remote action, tool call and frame. Client and local runtime read and write the same."""
