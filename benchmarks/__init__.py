"""What was measured, and how: the suite's numbers, each script with the result that it last printed."""
