"""What each action, tool and WebSocket target does, one module per subject."""
