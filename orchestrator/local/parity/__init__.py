"""What becomes of each member of each request: honoured, without meaning here, or refused."""
