"""The web console: pages that show the resources of this server, and send the same requests as other clients."""
