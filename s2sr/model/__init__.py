"""The instrument and the scene. Needs torch and numpy only."""
