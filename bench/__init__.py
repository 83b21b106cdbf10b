"""Benchmarks of the status-check path; none of this ships in the wheel."""
