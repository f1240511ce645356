"""What a training set must not hold: secrets, personal data, tests, and repositories of those who object."""
