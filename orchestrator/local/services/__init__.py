"""Services: each module creates the handlers of one."""
