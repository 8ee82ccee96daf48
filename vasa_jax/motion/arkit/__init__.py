"""What the named expression weights mean: lips and emotions."""
