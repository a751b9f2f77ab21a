"""The operation Search, for all kinds of resources that AWS can search."""
