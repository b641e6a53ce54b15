"""`agentbay mcp`: offers a session to programs that speak the Model Context Protocol."""
