"""What may go wrong: failures, kills, damaged files, extremes, precision, recorded episodes."""
