"""What does the effects of flows: one driver on requests, one on aiohttp (`protocol/effects.py`)."""
