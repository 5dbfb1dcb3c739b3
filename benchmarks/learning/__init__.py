"""How well the algorithms learn: curves, the leaderboard, searches of hyper-parameters."""
