"""The models that work: which, by what client, what they cost, what fails."""
