"""What is said in a run: how it begins, goes on, and is made smaller."""
