"""The gateway, which converts received bytes to validated operations."""
