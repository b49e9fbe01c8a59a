"""The contracts of Retrail: the ground floor, which imports nothing else of ours."""
