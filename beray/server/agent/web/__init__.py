"""What the agent itself asks of other hosts: an HTTP client that dials as the sandbox's proxy does, and `web_fetch`."""
