"""Services: each module or package creates the handlers of a service, or of a part of it."""
