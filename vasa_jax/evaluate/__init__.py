"""What ``evaluate`` runs: one table for many clips."""
