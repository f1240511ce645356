"""Repositories onto the disk: git, one commit deep, without anything of theirs or of the user's being run."""
