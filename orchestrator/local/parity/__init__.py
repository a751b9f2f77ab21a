"""The treatment of each member of each request: honoured, without effect locally, or refused."""
