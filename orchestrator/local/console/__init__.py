"""The web console: pages in a browser that show the resources of this server, and use the operations of all clients."""
