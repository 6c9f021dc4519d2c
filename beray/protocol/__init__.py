"""The wire contract that clients and server share: bytes and values only, no I/O."""
