"""The BeRay server. Start reading at `app.py`."""
